"""Answers to the questions of the comparison."""

from qarm.comparison.tables import answers
from qarm.schemas.comparison import Compared, Gain


def test_questions_are_answered_by_the_interval() -> None:
    def gain(method: str, against: str, low: float, high: float, part: str = "all") -> Gain:
        estimate = {"mean": (low + high) / 2, "low": low, "high": high, "error": 0.01, "p": 0.5}
        key = {"negatives": "uniform", "slice": part, "measure": "gauc"}
        return Gain.model_validate({**key, "method": method, "against": against, **estimate})

    main = "id+rq+vq"
    differences = [
        gain(main, "id", 0.01, 0.02),
        gain(main, f"{main}@placebo", -0.01, 0.02),
        gain("rq+vq", "id", -0.02, -0.01),
        gain(main, "id", 0.1, 0.2, "cold"),
        gain(main, "id", -0.2, -0.1, "L1"),
    ]
    results = Compared(seeds=[0], catalogue=[], means=[], differences=differences, primary=None, holm={})
    found = answers(results, negatives="uniform")
    assert [(a.compared, a.word) for a in found] == [
        (f"{main} minus {main}@placebo", "unclear"),
        (f"{main} minus id", "yes"),
        (f"{main} minus id, cold items", "yes"),
        ("rq+vq minus id", "no"),
    ]
