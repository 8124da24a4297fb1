"""Answers to the questions of the comparison, after Holm's correction over all of them."""

from qarm.comparison.questions import answered, gains_by_key
from qarm.schemas.comparison import Gain

MAIN = "id+rq+vq"


def gain(method: str, against: str, mean: float, p: float, part: str = "all", kind: str = "uniform") -> Gain:
    estimate = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "error": 0.01, "p": p}
    key = {"negatives": kind, "slice": part, "measure": "gauc"}
    return Gain.model_validate({**key, "method": method, "against": against, **estimate})


def test_answers_stand_after_holm_over_all_questions() -> None:
    """Five questions, two of them of cold items and popular negatives: .012 <= .05 / 3, .03 > .05 / 2."""
    differences = [
        gain(MAIN, "id", 0.02, 0.001),
        gain(MAIN, f"{MAIN}@placebo", 0.01, 0.03),
        gain("rq+vq", "id", -0.02, 0.012),
        gain(MAIN, "id", 0.1, 0.002, "cold"),
        gain(MAIN, "id", -0.2, 1e-9, "L1"),
        gain(MAIN, "id", 0.1, 0.04, kind="popular"),
    ]
    assert [(a.negatives, a.slice, a.method, a.against, a.word) for a in answered(differences)] == [
        ("uniform", "all", MAIN, f"{MAIN}@placebo", "unclear"),
        ("uniform", "all", MAIN, "id", "yes"),
        ("uniform", "cold", MAIN, "id", "yes"),
        ("uniform", "all", "rq+vq", "id", "no"),
        ("popular", "all", MAIN, "id", "unclear"),
    ]


def test_a_question_is_left_out_where_a_method_is_missing() -> None:
    assert answered([gain("id+raw", "id", 0.1, 0.01)]) == []
    assert set(gains_by_key([gain("id+raw", "id", 0.1, 0.01)])) == {("uniform", "id+raw", "id", "all")}
