"""Attributes: codes of categories, bins of numbers, and what is missing or was never seen."""

import json
from pathlib import Path

import numpy as np
import pytest

from qarm.encoder.towers.attributes import AttributesTower
from qarm.errors import InputError


def row(**attributes: object) -> str:
    return json.dumps(attributes)


SEEN = [row(brand=["a"], genres=["x", "y"], price=float(n)) for n in range(100)]


def cosine(tower: AttributesTower, first: str, second: str) -> float:
    a, b = tower.encode([tower.load(first), tower.load(second)])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_every_attribute_weighs_the_same() -> None:
    tower = AttributesTower.fit(SEEN)
    found = tower.load(row(brand=["a"], genres=["x", "y", "z"], price=7.0))
    assert (found.shape, found.dtype) == ((192,), np.float32)
    assert np.allclose(np.linalg.norm(found.reshape(3, 64), axis=1), 1, atol=1e-6)
    assert not tower.load(row()).any()
    assert np.flatnonzero(tower.load(row(genres=["x"]))).tolist() == list(range(64, 128))


def test_an_unknown_category_is_far_from_all_and_the_same_each_time() -> None:
    tower = AttributesTower.fit(SEEN)
    assert cosine(tower, row(brand=["new"]), row(brand=["new"])) == pytest.approx(1, abs=1e-6)
    others = [abs(cosine(tower, row(brand=["new"]), row(brand=[f"b{n}"]))) for n in range(50)]
    assert max(others) < 0.55
    assert np.mean(others) < 0.2
    assert cosine(tower, row(genres=["x", "y"]), row(genres=["x"])) == pytest.approx(0.707, abs=0.15)


def test_near_numbers_are_near_and_the_range_ends() -> None:
    tower = AttributesTower.fit(SEEN)
    near, far = (cosine(tower, row(price=50.0), row(price=other)) for other in (51.0, 90.0))
    assert near > 0.99
    assert far < 0.1
    assert cosine(tower, row(price=99.0), row(price=1e9)) == pytest.approx(1, abs=1e-6)
    constant = AttributesTower.fit([row(price=3.0)])
    assert np.isfinite(constant.load(row(price=4.0))).all()


def test_a_saved_tower_is_the_same_tower(tmp_path: Path) -> None:
    tower = AttributesTower.fit(SEEN)
    tower.save(tmp_path / "attributes")
    again = AttributesTower.read(tmp_path / "attributes")
    assert again.fingerprint == tower.fingerprint
    assert np.array_equal(again.load(SEEN[3]), tower.load(SEEN[3]))
    assert AttributesTower.fit(SEEN[:50]).fingerprint != tower.fingerprint


def test_another_kind_than_in_training_is_refused_and_a_new_name_says_nothing() -> None:
    tower = AttributesTower.fit(SEEN)
    assert np.array_equal(tower.load(row(price=1.0, colour=["red"])), tower.load(row(price=1.0)))
    for content, reason in ((row(price=["1"]), "need a number"), (row(brand=2.0), "need a category")):
        with pytest.raises(InputError, match=reason):
            tower.load(content)
