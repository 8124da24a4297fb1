"""A run folder, a comparison, a bundle, exported codes and a store of format 1, read and found fresh.

`format-1.zip` was written by the code before format 2: 34 generated items with texts, a random encoder of one
layer, six appended items, codebooks fitted again, and one item in the service's store.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from qarm.comparison.compare import compare_variants
from qarm.config import load_config
from qarm.core.atomic_io import digest, read_json, write_json
from qarm.core.formats import settings_from_1
from qarm.core.run_folder import read_manifest
from qarm.core.sealed_folder import opened_seal
from qarm.data.codes import Codes
from qarm.errors import ArtifactError, InputError
from qarm.pipeline import STAGES, run_stages
from qarm.quantizer.coder import encode
from qarm.quantizer.versions.archive import versions
from qarm.quantizer.versions.lifecycle import roll_back
from qarm.recommender.ranking.model import Ranker
from qarm.serving.bundle import Bundle
from qarm.serving.code_store import Store

LATER = {"ranker.time": "true", "ranker.start": "codebooks", "ranker.missing_codes": "0.1"}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.unpack_archive(Path(__file__).with_name("format-1.zip"), tmp_path)
    monkeypatch.chdir(tmp_path)  # its config names folders beside it
    return tmp_path


def config(**flags: str) -> object:
    return load_config(Path("shop.yaml"), flags=flags, environment={})


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_stage_is_fresh(old: Path) -> None:
    before = contents(Path("run"))
    stages = {stage.stage: stage.fresh for stage in run_stages(config(), Path("run"), last="train")}
    # the stage retrieve came later: it is made, and nothing else is touched
    assert stages == {stage.name: stage.name != "retrieve" for stage in STAGES if stage.name != "report"}
    after = contents(Path("run"))
    assert {path: after[path] for path in before} == before
    assert {path.parts[1] for path in after.keys() - before.keys()} == {"retriever", "tables.json"}


@pytest.mark.parametrize("setting", LATER)
def test_a_setting_that_format_1_did_not_know_makes_the_ranker_stale(old: Path, setting: str) -> None:
    flags = {setting: LATER[setting]}
    fresh = {stage.stage: stage.fresh for stage in run_stages(config(**flags), Path("run"), last="train")}
    assert fresh == {
        "check": True,
        "mine": True,
        "align": True,
        "embed": True,
        "quantize": True,
        "retrieve": False,
        "train": False,
    }
    manifest = read_manifest(Path("run/recommender"))
    assert manifest.format == 2
    name = setting.removeprefix("ranker.")
    assert manifest.config["ranker"][name] == getattr(config(**flags).ranker, name)


def test_the_comparison_goes_on(old: Path) -> None:
    scores = {path: path.read_bytes() for path in Path("run/compare").rglob("*.npy")}
    assert len(scores) == 15
    with pytest.raises(InputError, match="compare.edition=1"):  # it is no comparison of today's protocol
        compare_variants(config(), Path("run"))
    first = {"compare.edition": "1"}
    assert compare_variants(config(**first), Path("run")).edition == 1
    assert {path: path.read_bytes() for path in Path("run/compare").rglob("*.npy")} == scores
    assert read_json(Path("run/compare/key.json"))["format"] == 2
    compare_variants(config(**first), Path("run"))
    with pytest.raises(InputError, match="another --out"):
        compare_variants(config(**first, **{"compare.judged_users": "5"}), Path("run"))


def test_its_codes_are_read_and_rolled_back(old: Path) -> None:
    codes = Codes.read(Path("run/codes/codes.parquet"))
    assert (len(codes), codes.version, versions(Path("run/codes"))) == (40, 2, [1, 2])
    assert encode(Path("run"), Path("world/new.parquet")).item_ids == codes.item_ids[34:]
    roll_back(Path("run"), 1)
    first = Codes.read(Path("run/codes/codes.parquet"))
    again = encode(Path("run"), Path("world/new.parquet"))
    np.testing.assert_array_equal(again.rq, first.rq[34:])
    np.testing.assert_array_equal(again.vq, first.vq[34:])


def test_its_rankers_are_read(old: Path) -> None:
    for variant in ("id", "id+rq+vq"):
        bundled = Ranker.from_pretrained(Path("run/recommender") / variant)
        assert bundled.shape.dim == 4
        assert not bundled.shape.time


def test_its_bundle_and_store_are_read(old: Path) -> None:
    bundle = Bundle.load(Path("bundle"))
    assert (bundle.variant, bundle.config.quantizer.width, bundle.config.ranker.start) == (
        "id+rq+vq",
        4,
        "random",
    )
    assert (bundle.recommender, bundle.users) == (None, None)  # the retriever came later
    store = Store(Path("store"))
    kept = store.find("n1", bundle.version)
    store.close()
    row = {"item_id": "n1", "title": "small red kettle", "description": "for tea"}
    vectors, codes = bundle.code(bundle.catalog_of([row]))
    assert kept.rq.tolist() == codes.rq[0].tolist() == [2, 2]
    assert kept.vq.tolist() == codes.vq[0].tolist() == [26, 5, 12]
    np.testing.assert_allclose(kept.vector, vectors.vectors[0], atol=1e-6)
    assert opened_seal(Path("exported"), kind="qarm-codes-1")


def test_a_later_format_is_refused(old: Path) -> None:
    path = Path("run/codes/manifest.json")
    content = read_json(path) | {"format": 3}
    del content["sha256"]
    write_json(path, content | {"sha256": digest(content)})
    with pytest.raises(ArtifactError, match="format 3, need at most 2"):
        read_manifest(path.parent)


def test_settings_that_format_1_left_out_by_hand() -> None:
    before_ranker = {"seed": 0, "data": {"items": {}, "interactions": {"user": "u"}}, "split": {}}
    assert settings_from_1(before_ranker) == before_ranker
    ranker = before_ranker | {"ranker": {"dim": 8, "start": "codebooks"}}
    full = settings_from_1(ranker)
    assert full["data"]["users"] == {"path": "users.parquet", "id": "user_id", "features": []}
    assert full["data"]["interactions"] == {"user": "u", "labels": {}}
    assert full["ranker"] == {
        "dim": 8,
        "start": "codebooks",
        "prefixes": 0,
        "nearest_weights": False,
        "time": False,
        "missing_codes": 0.0,
    }
    assert ranker["ranker"] == {"dim": 8, "start": "codebooks"}
