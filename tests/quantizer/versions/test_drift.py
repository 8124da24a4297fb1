"""Monitoring: the figures by hand, quiet where nothing changed, loud where something did."""

import json
import math

import numpy as np
import pytest

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions.drift import fit_profile, monitor
from qarm.schemas.codes import Profile, ProfileLevel

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(30, 8)) * 2


def sample(n: int, groups: np.ndarray, *, spread: float = 1.0) -> Embeddings:
    x = CENTRES[RNG.choice(groups, size=n)] + spread * RNG.normal(size=(n, 8))
    return Embeddings([f"i{row}" for row in range(n)], x.astype(np.float32))


FIT = sample(3000, np.arange(30))
BOOKS = ResidualKMeans(2, 64).fit(FIT)


def profile(items: Embeddings) -> Profile:
    return fit_profile(items, BOOKS.codes(items), BOOKS)


THEN = profile(FIT)


def test_figures_by_hand() -> None:
    level = ProfileLevel(counts=[3, 1], energy_left=0.5)
    now = ProfileLevel(counts=[2, 2], energy_left=0.6)
    found = monitor(Profile(items=4, levels=[level]), Profile(items=4, levels=[now]))
    entry = found.content()["levels"][0]
    # half an item is added to each code: shares .7 and .3 then, .5 and .5 now
    assert entry["stability_index"] == pytest.approx(-0.2 * math.log(0.5 / 0.7) + 0.2 * math.log(0.5 / 0.3))
    assert entry["energy_ratio"] == pytest.approx(1.2)
    assert (entry["hottest"], entry["hottest_code"], entry["hottest_at_fit"]) == (0.5, 0, 0.75)
    assert entry["hottest_ratio"] == 2 / 4  # among 50 samples of four one is sure to fill a single code
    assert found.exceeded == []


def test_profile_by_hand() -> None:
    x = np.array([[3.0], [5.0], [-4.0]], dtype=np.float32)
    books = ResidualKMeans(1, 2, init=[np.array([[4.0], [-4.0]])]).fit(x)
    items = Embeddings(["a", "b", "c"], x)
    assert fit_profile(items, books.codes(items), books).content() == {
        "items": 3,
        "levels": [{"counts": [2, 1], "energy_left": 2 / 50}],
    }


@pytest.mark.parametrize("n", [15, 100, 1000, 20000])
def test_items_like_those_of_fit_time_raise_no_alarm(n: int) -> None:
    found = monitor(THEN, profile(sample(n, np.arange(30))))
    assert found.exceeded == []
    for entry in found.content()["levels"]:
        assert abs(entry["stability_excess"]) < 0.12
    json.dumps(found.content(), allow_nan=False)


def test_other_groups_shift_the_codes() -> None:
    found = monitor(THEN, profile(sample(500, np.arange(10))))
    assert "level 1: stability_excess is" in " ".join(found.exceeded)
    assert found.content()["levels"][0]["stability_excess"] > 1.0


def test_unseen_content_leaves_more_energy() -> None:
    found = monitor(THEN, profile(sample(500, np.arange(30), spread=2.5)))
    assert "level 2: energy_ratio" in " ".join(found.exceeded)


def test_one_hot_code() -> None:
    found = monitor(THEN, profile(sample(200, np.array([4]))))
    assert any(line.startswith("level 1: hottest_ratio is") for line in found.exceeded)
    one = monitor(THEN, profile(sample(1, np.array([4]))))
    assert one.content()["levels"][0]["hottest_ratio"] == 1.0  # any single item makes its code the hottest


def test_thresholds_can_be_set() -> None:
    same = profile(sample(1000, np.arange(30)))
    assert len(monitor(THEN, same, thresholds={"energy_ratio": 0.1}).exceeded) == 2
    with pytest.raises(InputError, match="got thresholds psi, need some of stability_excess"):
        monitor(THEN, same, thresholds={"psi": 1.0})


def test_what_does_not_compare() -> None:
    other = ResidualKMeans(2, 32).fit(FIT)
    with pytest.raises(InputError, match=r"widths \[64, 64\] and \[32, 32\]"):
        monitor(THEN, fit_profile(FIT, other.codes(FIT), other))
    with pytest.raises(InputError, match="same items in the same order"):
        fit_profile(FIT, Codes(FIT.item_ids[::-1], BOOKS.transform(FIT)), BOOKS)
