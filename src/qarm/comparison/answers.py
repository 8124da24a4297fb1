"""The questions of the comparison, in order, each answered by an interval."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Answer", "answers"]


class Question(NamedTuple):
    """Whether `method` minus `against`, on a slice, is above zero."""

    text: str
    method: str
    against: str
    part: str = "all"


class Answer(NamedTuple):
    """What was asked, what was compared, the difference (see `intervals.Difference`), and yes, no or unclear.

    yes: the interval lies above zero; no: below; unclear: it holds zero.
    """

    text: str
    compared: str
    difference: Mapping[str, Any]
    word: str


def answers(results: Mapping[str, Any], *, negatives: str | None = None) -> list[Answer]:
    """Answers from the content of `compare/results.json`; a question is left out where a variant is missing.

    negatives: the kind that is asked about; by default the first, which is the primary one.
    """
    kind = negatives or results["means"][0]["negatives"]
    found = {
        (d["method"], d["against"], d["slice"]): d
        for d in results["differences"]
        if d["measure"] == "gauc" and d["negatives"] == kind
    }
    return [
        Answer(question.text, _compared(question), difference, _word(difference))
        for question in _questions()
        if (difference := found.get((question.method, question.against, question.part)))
    ]


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


def _compared(question: Question) -> str:
    place = "" if question.part == "all" else f", {question.part} items"
    return f"{question.method} minus {question.against}{place}"


def _word(difference: Mapping[str, Any]) -> str:
    if difference["low"] > 0:
        return "yes"
    return "no" if difference["high"] < 0 else "unclear"
