"""Tables of the report: shares, intervals and counts by hand."""

from typing import Any

from qarm.report.tables import agreement_lines, collision_lines, leaves, level_lines, pair_lines
from qarm.schemas.codes import CodeQuality
from qarm.schemas.pairs import PairQuality


def test_pairs_codes_and_collisions_as_tables() -> None:
    spread = {"mean": 1.0, "max": 2}
    score = {"min": 0.0, "median": 0.5, "max": 1.0}
    source: dict[str, Any] = {
        "pairs": 12_345,
        "items": 90,
        "items_share": 0.9,
        "users_share": 0.5,
        "score": score,
    }
    source |= {"count": spread, "per_item": spread}
    lift: dict[str, Any] = {
        "lift": 2.184,
        "lift_interval": [1.94, 2.41],
        "matched_lift": None,
        "matched_lift_interval": None,
    }
    lift |= dict.fromkeys(("users_per_pair", "users_per_random_pair", "users_per_matched_pair"), 0.5)
    quality: dict[str, Any] = {"pairs": 9, "items": 9, "users": 9, "per_item": spread, "popularity": []}
    quality["sources"] = {"item2item": source | {"lift": lift}, "user2item": source}
    quality["overlap"] = {"pairs": 0, "share": {}}
    _, first, second = pair_lines(PairQuality.model_validate(quality))
    assert first == ["Swing", "12,345", "90", "90.00 %", "2.18 [1.94, 2.41]", "-", "-"]
    assert second[4:] == ["-", "-", "-"]
    level: dict[str, float] = dict.fromkeys(("utilisation", "entropy", "gini", "energy_left"), 0.5)
    level |= {"level": 1, "width": 64, "used": 60, "dead": 4, "perplexity": 1.5}
    per_code = {"mean": 1.0, "max": 2, "histogram": {"1": 1966, "2": 17}}
    content = {
        "items": 2000,
        "levels": [level],
        "full_codes": {"distinct": 1983, "collision_rate": 0.017, "items_per_code": per_code},
        "neighbour_overlap_at_10": None,
        "pairs": {"used": 1, "skipped": 0, "agreement": [{"levels": 1, "share": 0.1622, "chance": 0.0169}]},
    }
    codes = CodeQuality.model_validate(content)
    assert level_lines(codes)[1][:4] == ["1", "64", "60", "0.5"]
    assert collision_lines(codes)[1:] == [["1", "1,966"], ["2", "17"]]
    assert agreement_lines(codes)[1:] == [["first 1", "16.22 %", "1.69 %"]]
    assert agreement_lines(codes.model_copy(update={"pairs": None}))[1:] == []


def test_any_json_as_lines() -> None:
    found = leaves({"a": {"b": 1234, "c": None}, "d": [1, 2], "e": [{"f": 1}], "g": True, "h": 0.123456})
    assert found == [("a.b", "1,234"), ("a.c", "-"), ("d", "1, 2"), ("g", "yes"), ("h", "0.1235")]
