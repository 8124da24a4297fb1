"""Tower features: computed once for each content, kept through a kill, shared between catalogues."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.data.catalog import Catalog
from qarm.encoder import feature_cache as module
from qarm.encoder.feature_cache import feature_shards, open_feature_caches, tower_features
from qarm.errors import ArtifactError, InputError


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 4)


@pytest.fixture
def catalog(make_catalog: Callable[..., Catalog]) -> Catalog:
    random = np.random.default_rng(0)
    text, image = random.normal(size=(10, 3)), random.normal(size=(10, 5))
    return make_catalog(text, image, missing={"image": [1, 4, 5, 6, 7]})


def parts(cache: Path) -> list[Path]:
    return sorted(cache.rglob("part-*"), key=lambda path: path.stat().st_mtime_ns)


def test_values_of_those_that_have_them_in_order(catalog: Catalog, fake: Any) -> None:
    towers = {m: fake(m) for m in ("text", "image", "audio")}
    found = tower_features(catalog, towers)
    assert found.item_ids == catalog.item_ids
    assert found.values.keys() == found.present.keys() == {"text", "image"}
    assert found.present["image"].nonzero()[0].tolist() == [0, 2, 3, 8, 9]
    expected = [np.frombuffer(cell, dtype=np.float32) for cell in catalog.frame["image"].drop_nulls()]
    assert np.array_equal(found.values["image"], expected)
    assert towers["text"].encoded == 10


def test_a_killed_run_resumes_at_the_next_shard(catalog: Catalog, fake: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = tower_features(catalog, {"text": fake("text")}, cache=cache)
    assert len(parts(cache)) == 3
    parts(cache)[-1].unlink()
    (parts(cache)[0].parent / ".part-x.safetensors.1.tmp").write_bytes(b"half a file")
    tower = fake("text")
    again = tower_features(catalog, {"text": tower}, cache=cache)
    assert tower.encoded == 2
    assert np.array_equal(again.values["text"], whole.values["text"])


def test_a_part_of_a_catalogue_and_its_whole_share_what_is_there(
    catalog: Catalog, fake: Any, tmp_path: Path
) -> None:
    tower = fake("text")
    tower_features(catalog.only(["i9", "i2", "i3"]), {"text": tower}, cache=tmp_path / "cache")
    found = tower_features(catalog, {"text": tower}, cache=tmp_path / "cache")
    assert tower.encoded == 10
    fresh = tower_features(catalog, {"text": fake("text")})
    assert np.array_equal(found.values["text"], fresh.values["text"])


def test_only_changed_content_is_encoded_again(catalog: Catalog, fake: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tower_features(catalog, {"text": fake("text")}, cache=cache)
    changed = pl.when(pl.col("item_id") == "i2").then(pl.lit("7 7 7")).otherwise("text").alias("text")
    frame = catalog.frame.with_columns(changed, item_id=pl.col("item_id") + "-renamed")
    tower = fake("text")
    found = tower_features(Catalog(frame, tmp_path), {"text": tower}, cache=cache)
    assert tower.encoded == 1
    assert found.values["text"][2].tolist() == [7, 7, 7]


def test_equal_contents_are_encoded_once_in_a_shard(make_catalog: Callable[..., Catalog], fake: Any) -> None:
    tower = fake("text")
    found = tower_features(make_catalog(np.ones((4, 3))), {"text": tower})
    assert tower.encoded == 1
    assert found.values["text"].tolist() == [[1, 1, 1]] * 4


def test_another_tower_has_its_own_shelf(catalog: Catalog, fake: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tower_features(catalog, {"text": fake("text")}, cache=cache)
    newer = fake("text", revision="2")
    tower_features(catalog, {"text": newer}, cache=cache)
    assert newer.encoded == 10


def test_files_are_read_from_the_catalogues_folder(fake: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    (tmp_path / "b.bin").write_bytes(b"odd")
    frame = pl.DataFrame({"item_id": ["a", "b", "c"], "image": ["a.bin", "b.bin", "gone.bin"]})
    catalog = Catalog(frame, tmp_path)
    assert tower_features(catalog.only(["a"]), {"image": fake("image")}).values["image"].tolist() == [
        [0, 1, 2]
    ]
    with pytest.raises(InputError) as error:
        tower_features(catalog, {"image": fake("image")})
    assert len(error.value.problems) == 2
    assert "item 'b': image b.bin: no whole number of floats; repair it, or use Catalog" in str(error.value)
    assert "item 'c': image gone.bin: no such file; repair" in str(error.value)


def test_a_damaged_cache_file_is_named(catalog: Catalog, fake: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tower_features(catalog, {"text": fake("text")}, cache=cache)
    bad = parts(cache)[0]
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(ArtifactError, match="damaged cache file .*; delete it"):
        tower_features(catalog, {"text": fake("text")}, cache=cache)


def test_every_flipped_bit_of_a_cache_file_is_named_or_harmless(
    catalog: Catalog, fake: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    expected = tower_features(catalog, {"text": fake("text")}, cache=cache).values["text"]
    path = parts(cache)[0]
    content, named = path.read_bytes(), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            found = tower_features(catalog, {"text": fake("text")}, cache=cache).values["text"]
        except ArtifactError as error:
            assert str(path) in str(error)  # noqa: PT017 - not all of them are errors
            named += 1
        else:
            np.testing.assert_array_equal(found, expected)
        for other in parts(cache):
            if other != path:
                other.unlink()
    assert named > len(expected) * 4


def test_shards_need_not_be_kept(catalog: Catalog, fake: Any) -> None:
    tower = fake("text")
    caches = open_feature_caches({"text": tower}, None)
    tower_features(catalog.only(["i0", "i1", "i5"]), {"text": tower}, caches=caches)
    found = list(feature_shards(catalog, {"text": tower}, caches, keep=False))
    assert [len(shard) for shard in found] == [4, 4, 2]
    whole = tower_features(catalog, {"text": fake("text")})
    assert np.array_equal(np.concatenate([s.values["text"] for s in found]), whole.values["text"])
    assert tower.encoded == 10
    tower_features(catalog, {"text": tower}, caches=caches)
    assert tower.encoded == 17  # the seven new ones had not been kept
