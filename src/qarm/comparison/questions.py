"""Questions of the comparison, and their answers after Holm's correction over all of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from qarm.comparison.two_way_intervals import holm
from qarm.schemas.comparison import Answered, CatalogueGain, Gain

__all__ = ["answered", "gains_by_key"]


class Question(NamedTuple):
    """Whether `method` minus `against`, on a slice, is above zero."""

    text: str
    method: str
    against: str
    part: str = "all"


def answered(differences: Iterable[Gain | CatalogueGain]) -> list[Answered]:
    """Answers by differences in GAUC, for each kind of negatives.

    Holm's correction runs over all that were asked: of cold, warm and popular-negative rows too. A question
    is left out where a method is missing.
    """
    gains = gains_by_key(differences)
    asked = [
        (question, gain)
        for kind in dict.fromkeys(negatives for negatives, *_ in gains)
        for question in _questions()
        if (gain := gains.get((kind, question.method, question.against, question.part)))
    ]
    stand = holm({str(number): gain.p for number, (_, gain) in enumerate(asked)})
    return [
        Answered(
            question=question.text,
            word="unclear" if not stand[str(number)] else "yes" if gain.mean > 0 else "no",
            negatives=gain.negatives,
            slice=gain.slice,
            method=gain.method,
            against=gain.against,
            measure="gauc",
        )
        for number, (question, gain) in enumerate(asked)
    ]


def gains_by_key(differences: Iterable[Gain | CatalogueGain]) -> dict[tuple[str, str, str, str], Gain]:
    """Differences in GAUC by negatives, method, base and slice."""
    return {
        (gain.negatives, gain.method, gain.against, gain.slice): gain
        for gain in differences
        if isinstance(gain, Gain) and gain.measure == "gauc"
    }


def _questions(main: str = "id+rq+vq") -> Iterator[Question]:
    yield Question("Do the codes say something, beyond further parameters?", main, f"{main}@placebo")
    yield Question("Do codes beside ids beat ids alone?", main, "id")
    yield Question("Do they beat the aligned vector as a fixed input?", main, "id+frozen")
    yield Question("Do they with a search of the history by code?", f"{main}+cross", "id+frozen")
    yield Question("Do codes of aligned vectors beat those of unaligned ones?", main, f"{main}@raw")
    yield Question("Do cold items gain?", main, "id", "cold")
    yield Question("Do warm items gain?", main, "id", "warm")
    yield Question("Do codes without ids beat ids?", "rq+vq", "id")
    yield Question("Do codes lose nothing without ids?", "rq+vq", main)
