"""Flipped bits: one at a time, judged by name or by result."""

import random
from pathlib import Path

import numpy as np
import pytest

from hardening.flips import KINDS, flip
from qarm.encoder.feature_cache import FeatureCache
from qarm.errors import ArtifactError


def test_one_bit_is_flipped_and_a_second_flip_of_it_restores_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(64)))
    bit = flip(path, random.Random(0))  # noqa: S311
    changed = [a ^ b for a, b in zip(path.read_bytes(), range(64), strict=True)]
    assert [index for index, value in enumerate(changed) if value] == [bit // 8]
    assert changed[bit // 8] == 1 << bit % 8
    assert flip(path, random.Random(0)) == bit  # noqa: S311
    assert path.read_bytes() == bytes(range(64))


def test_files_of_run_bundle_and_store_are_among_the_kinds() -> None:
    assert {kind.pattern.split("/")[0] for kind in KINDS} == {"run", "out", "store"}


def test_a_flipped_bit_of_a_cached_feature_is_named(tmp_path: Path) -> None:
    FeatureCache(tmp_path).add([b"a" * 32], np.ones((1, 64), dtype=np.float32))
    (part,) = tmp_path.glob("part-*")
    content = bytearray(part.read_bytes())
    content[content.index(np.float32(1).tobytes() * 8) + 1] ^= 1
    part.write_bytes(content)
    with pytest.raises(ArtifactError, match=part.name):
        FeatureCache(tmp_path).take([b"a" * 32])
