"""Text of the comparison's tables: the verdict of the anchors, and the answers with their intervals."""

from qarm.comparison.tables import answer_lines, comparison_summary, comparison_tables
from qarm.schemas.comparison import Compared, Gain, Means

MAIN = "id+rq+vq"


def gain(method: str, against: str, mean: float, part: str = "all", kind: str = "uniform") -> Gain:
    estimate = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "error": 0.005, "p": 0.001}
    key = {"negatives": kind, "slice": part, "measure": "gauc", "method": method, "against": against}
    wide = {"df": 9.0, "smallest_effect": 0.0142, "item_low": mean - 0.02, "item_high": mean + 0.02}
    return Gain.model_validate({**key, **estimate, **wide})


def results(**more: object) -> Compared:
    mean = dict.fromkeys(("auc", "logloss", "calibration", "gauc_spread", "uauc_spread"))
    mean |= {"negatives": "uniform", "slice": "all", "rows": 10, "users": 5, "gauc": 0.6, "uauc": 0.6}
    content = {
        "seeds": [0],
        "catalogue": [{"method": MAIN, "recall": 0.1}],
        "means": [Means.model_validate({**mean, "method": MAIN})],
        "differences": [gain(MAIN, "id", 0.02), gain(MAIN, "id", 0.03, "cold", "popular")],
        "primary": gain(MAIN, "id", 0.02),
        "holm": {},
    }
    return Compared.model_validate(content | more)


def test_a_question_stands_beside_its_intervals_and_smallest_effect() -> None:
    header, first, second = answer_lines(results())
    assert header[2:] == ["GAUC, 95 % over users and seeds", "over items too", "smallest effect", "answer"]
    assert first[1:] == [
        f"{MAIN} minus id",
        "+0.0200 [+0.0100, +0.0300]",
        "[+0.0000, +0.0400]",
        "0.0142",
        "yes",
    ]
    assert second[1] == f"{MAIN} minus id, cold items, popular negatives"


def test_an_older_comparison_says_what_its_intervals_hold() -> None:
    """It was written by the code that resampled users alone, and names no edition."""
    old = results().model_dump(exclude={"edition", "answers", "anchors_ahead", "left_out"})
    for each in (*old["differences"], old["primary"]):
        for name in ("df", "item_low", "item_high"):
            del each[name]
    found = Compared.model_validate(old)
    assert answer_lines(found)[0][2] == "GAUC, 95 % over users alone"
    assert "protocol edition 1, intervals over users alone" in comparison_tables(found)


def test_an_anchor_that_is_ahead_stands_in_the_first_line() -> None:
    ahead = [gain("like-rate", "id", 0.04, "warm"), gain("EASE", MAIN, 0.02, "warm")]
    found = results(anchors_ahead=ahead, left_out=["ALS: implicit is not installed (extra als)"])
    first = comparison_tables(found).splitlines()[0]
    assert first == comparison_summary(found).splitlines()[0]
    assert first.startswith("**This set cannot support the claim.**")
    assert "like-rate is ahead of id by +0.0400 [+0.0300, +0.0500] (uniform)" in first
    assert f"EASE is ahead of {MAIN}" in first
    assert "Anchors left out: ALS" in comparison_tables(found)
    assert comparison_tables(results()).startswith("Primary")
