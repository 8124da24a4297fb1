"""A run's codes: the quantiser that the config names; later items change nothing for earlier ones."""

from pathlib import Path

import numpy as np
import pytest

from qarm.config import QuantizerConfig, load_config
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, ConfigError, InputError
from qarm.quantizer.factory import all_codes, auto_width, load_quantizer, new_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.refit import append


def vectors(count: int = 120) -> Embeddings:
    """Five tight groups, so that codes collide."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(5, 8))
    rows = centres[np.arange(count) % 5] + 0.01 * random.normal(size=(count, 8))
    return Embeddings([f"i{number:03}" for number in range(count)], rows.astype(np.float32))


def part(everything: Embeddings, count: int) -> Embeddings:
    return Embeddings(everything.item_ids[:count], everything.vectors[:count])


@pytest.mark.parametrize("last", ["kmeans", "fsq", "opq"])
def test_every_kind_comes_back_from_its_folder(last: str, tmp_path: Path) -> None:
    everything = vectors()
    settings = QuantizerConfig.model_validate({"levels": 3, "width": 4, "last": last, "nearest": 5})
    quantizer = new_quantizer(settings, 120).fit(everything)
    codes = quantizer.transform(everything)
    assert codes.shape == (120, 3)
    quantizer.save_pretrained(tmp_path)
    again = load_quantizer(tmp_path)
    assert type(again) is type(quantizer)
    assert np.array_equal(again.transform(everything), codes)


def test_a_folder_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"kind": "Mystery"}')
    with pytest.raises(ArtifactError, match="holds Mystery, need one of ResidualKMeans"):
        load_quantizer(tmp_path)


@pytest.mark.parametrize("policy", ["keep", "suffix", "reassign"])
def test_later_items_change_nothing_for_earlier_ones(policy: str) -> None:
    everything = vectors()
    known = part(everything, 90)
    quantizer = new_quantizer(QuantizerConfig(levels=2, width=16), 90).fit(known)
    nearest = NearestCodes(5).fit(known)
    fewer = all_codes(part(everything, 100), known.item_ids, quantizer, nearest, collisions=policy)
    more = all_codes(everything, known.item_ids, quantizer, nearest, collisions=policy)
    assert np.array_equal(fewer.rq[:90], more.rq[:90])
    full = {tuple(code) for code in more.rq[:90].tolist()}
    if policy == "reassign":
        assert len(full) == 90
    if policy == "suffix":
        assert fewer.suffix is not None
        assert more.suffix is not None
        assert np.array_equal(fewer.suffix[:90], more.suffix[:90])
        told_apart = np.column_stack([more.rq, more.suffix])
        assert len(np.unique(told_apart, axis=0)) == 120
    else:
        assert more.suffix is None


def test_suffixes_stay_when_items_are_appended(tmp_path: Path) -> None:
    everything = vectors()
    known = part(everything, 90)
    quantizer = new_quantizer(QuantizerConfig(levels=2, width=4), 90).fit(known)
    nearest = NearestCodes(5).fit(known)
    published = all_codes(known, known.item_ids, quantizer, nearest, collisions="suffix")
    after = append(published, everything, quantizer, nearest=nearest)
    assert after.suffix is not None
    assert published.suffix is not None
    assert np.array_equal(after.suffix[:90], published.suffix)
    assert len(np.unique(np.column_stack([after.rq, after.suffix]), axis=0)) == 120
    after.write(tmp_path / "codes.parquet")
    read = Codes.read(tmp_path / "codes.parquet")
    assert read.suffix is not None
    assert np.array_equal(read.suffix, after.suffix)


def test_settings_that_do_not_go_together() -> None:
    for flags in (
        {"quantizer.last": "opq", "quantizer.collisions": "reassign"},
        {"quantizer.last": "fsq", "quantizer.balance": "last"},
        {"quantizer.last": "fsq", "quantizer.levels": "1"},
    ):
        with pytest.raises(ConfigError, match="need"):
            load_config(flags=flags, environment={})
    everything = vectors()
    quantizer = new_quantizer(QuantizerConfig(levels=2, width=4), 120).fit(everything)
    nearest = NearestCodes(5).fit(everything)
    with pytest.raises(InputError, match="got collisions='merge', need one of keep, suffix, reassign"):
        all_codes(everything, everything.item_ids, quantizer, nearest, collisions="merge")


@pytest.mark.parametrize(
    ("items", "levels", "width"),
    [
        (192, 3, 8),
        (600, 3, 32),
        (1800, 3, 64),
        (4159, 3, 256),
        (12086, 3, 512),
        (10**9, 3, 8192),
        (3, 3, 3),
        (1, 1, 1),
        (600, 1, 128),  # one level: 32 codes would be fewer than items, and 4 items per code remain
        (300, 2, 32),
    ],
)
def test_auto_width(items: int, levels: int, width: int) -> None:
    assert auto_width(items, levels) == width


def test_auto_width_needs_items() -> None:
    with pytest.raises(InputError, match="got n_items=0"):
        auto_width(0, 3)
