"""Codes that live on in a run folder: append, refit, roll back, watch; killed or refused, nothing is lost."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import polars as pl
import pytest

from qarm.cli import main
from qarm.config import load_config
from qarm.core.atomic_io import digest, read_json, write_json
from qarm.data.run_inputs import Run
from qarm.demo import WorldSpec, build_world
from qarm.errors import ArtifactError, InputError
from qarm.pipeline import run_stages
from qarm.quantizer.versions.archive import valid_since
from qarm.quantizer.versions.lifecycle import append_items, drift, refit_codes, roll_back
from qarm.schemas import SCHEMAS

SMALL = {
    "pairs.user2item.epochs": "2",
    "encoder.epochs": "2",
    "encoder.min_steps": "1",
    "encoder.dim": "32",
    "quantizer.width": "8",
    "quantizer.nearest": "5",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the first 100 items of a world; `new.parquet` beside its tables has the other 20."""
    folder = tmp_path_factory.mktemp("upkeep")
    world = folder / "world"
    build_world(world, seed=5, spec=WorldSpec(items=120, users=60, events_per_user=30))
    items, log = pl.read_parquet(world / "items.parquet"), pl.read_parquet(world / "interactions.parquet")
    items.tail(20).write_parquet(world / "new.parquet")
    items.head(100).write_parquet(world / "items.parquet")
    log.filter(pl.col("item_id").is_in(items["item_id"].head(100).implode())).write_parquet(
        world / "interactions.parquet"
    )
    config = load_config(flags={"data.root": str(world), **SMALL}, environment={})
    list(run_stages(config, folder / "run", last="quantize"))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def new(finished: Path) -> Path:
    return finished / "world" / "new.parquet"


def codes_of(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "codes" / "codes.parquet")


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "timing.json")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_append_moves_nothing_and_counts_once(run: Path, new: Path) -> None:
    before = codes_of(run)
    assert append_items(run, new).appended == 20
    after = codes_of(run)
    assert after.height == 120
    assert after.head(100).equals(before)
    files = hashes(run)
    assert append_items(run, new).content() == {"items": 120, "appended": 20, "repeated": True}
    some = new.with_name("some.parquet")
    pl.read_parquet(new).head(3).write_parquet(some)
    assert append_items(run, some).content() == {"items": 120, "appended": 0, "repeated": True}
    assert hashes(run) == files


def test_a_run_goes_on_from_appended_codes(run: Path, new: Path, finished: Path) -> None:
    """The quantize stage stays fresh; only what reads the codes is stale."""
    append_items(run, new)
    config = load_config(flags={"data.root": str(finished / "world"), **SMALL}, environment={})
    assert all(done.fresh for done in run_stages(config, run, last="quantize"))


def test_refit_makes_a_version_and_rollback_brings_the_old_one_back(run: Path, new: Path) -> None:
    append_items(run, new)
    first = {name: value for name, value in hashes(run / "codes").items() if name != "manifest.json"}
    assert refit_codes(run).version == 2
    codes = codes_of(run)
    assert codes["version"].unique().to_list() == [2]
    assert codes.height == 120
    churn = json.loads((run / "codes" / "churn.json").read_text())
    SCHEMAS["codes/churn.json"].model_validate(churn)
    assert (churn["from"], churn["to"], churn["items"]) == (1, 2, 120)
    assert churn["full_codes"] < 0.9
    remap = pl.read_parquet(run / "codes" / "remap.parquet")
    assert remap.group_by("level").agg(pl.col("items").sum())["items"].to_list() == [120] * 3
    pool = pl.read_parquet(run / "codes" / "pool.parquet")
    old_pool = pl.read_parquet(run / "codes" / "versions" / "1" / "pool.parquet")
    assert pool.head(old_pool.height).equals(old_pool)
    assert set(pl.read_parquet(new)["item_id"]) <= set(pool["item_id"])
    names = dict(pool.iter_rows())
    assert all(item not in {names[i] for i in vq} for item, vq in codes.select("item_id", "vq").iter_rows())
    assert roll_back(run, 1).content() == {"version": 1, "versions": [1, 2]}
    back = hashes(run / "codes")
    assert {name: back[name] for name in first} == first
    roll_back(run, 2)
    assert codes_of(run).equals(codes)
    with pytest.raises(InputError, match="got version 7"):
        roll_back(run, 7)


def test_a_refit_is_known_by_what_it_learns_from(run: Path, new: Path, tmp_path: Path) -> None:
    """Killed after its swap and repeated it makes no third version; new items do."""
    first = refit_codes(run)
    files = hashes(run)
    assert refit_codes(run).content() == first.content() | {"repeated": True}
    assert hashes(run) == files
    append_items(run, new)
    assert refit_codes(run).content() == {"version": 3, "items": 120, "changed": pytest.approx(0.5, abs=0.5)}
    assert refit_codes(run).content()["repeated"]


def test_a_refit_learns_from_all_known_items_whatever_the_pool(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    flags = {"data.root": str(finished / "world"), **SMALL, "quantizer.pool": "12"}
    config, run = load_config(flags=flags, environment={}), tmp_path / "run"
    list(run_stages(config, run, last="quantize"))
    known = pl.read_parquet(run / "codes" / "fitted.parquet")["item_id"].to_list()
    assert known == Run(config, run).known.item_ids
    assert len(known) > pl.read_parquet(run / "codes" / "pool.parquet").height == 12
    assert read_json(run / "codes" / "profile.json")["items"] == len(known)
    refit_codes(run)
    assert read_json(run / "codes" / "profile.json")["items"] == len(known)
    roll_back(run, 2)
    _forget_fitted(run)
    with pytest.raises(InputError, match=r"did not note which items .* quantize CONFIG --out"):
        refit_codes(run)
    refit_codes(run, config=config)
    assert read_json(run / "codes" / "profile.json")["items"] == len(known)


def _forget_fitted(run: Path) -> None:
    """As an earlier qarm left the codes."""
    (run / "codes" / "fitted.parquet").unlink()
    manifest = read_json(run / "codes" / "manifest.json")
    del manifest["outputs"]["fitted.parquet"], manifest["sha256"]
    write_json(run / "codes" / "manifest.json", manifest | {"sha256": digest(manifest)})


def test_times_belong_to_items_and_only_grow(run: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append, also an empty one, and a clock a day back."""
    codes, ids = run / "codes", codes_of(run)["item_id"].to_list()
    first = valid_since(codes, ids)
    assert len(set(first)) == 1
    append_items(run, new)
    everyone = codes_of(run)["item_id"].to_list()
    times = valid_since(codes, everyone)
    assert times[:100] == first
    assert len(set(times[100:])) == 1
    assert times[100] > first[0]
    append_items(run, new)
    assert valid_since(codes, everyone) == times
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400.0)
    refit_codes(run)
    second = valid_since(codes, everyone)
    assert len(set(second)) == 1
    assert second[0] > max(times)
    roll_back(run, 1)
    assert min(valid_since(codes, everyone)) > second[0]


def test_a_rollback_tells_items_that_have_no_code_then(run: Path, new: Path) -> None:
    refit_codes(run)
    append_items(run, new)
    assert roll_back(run, 1).content() == {"version": 1, "versions": [1, 2], "without_codes": 20}
    assert roll_back(run, 2).content() == {"version": 2, "versions": [1, 2]}
    assert codes_of(run).height == 120


def test_an_append_keeps_the_manifests_of_earlier_versions(run: Path, new: Path, finished: Path) -> None:
    """Without them a rollback would bring back codes that no run takes for finished."""
    refit_codes(run)
    append_items(run, new)
    assert roll_back(run, 1).version == 1
    config = load_config(flags={"data.root": str(finished / "world"), **SMALL}, environment={})
    assert all(done.fresh for done in run_stages(config, run, last="quantize"))


def test_drift_tells_new_from_strange(run: Path, new: Path, tmp_path: Path) -> None:
    assert drift(run, new).items == 20
    one = pl.read_parquet(new).head(1)
    copies = pl.concat([one.with_columns(item_id=pl.lit(f"copy-{n}")) for n in range(300)])
    strange = new.with_name("strange.parquet")
    copies.write_parquet(strange)
    assert any("hottest_ratio" in sentence for sentence in drift(run, strange).exceeded)
    with pytest.raises(SystemExit) as stopped:
        main(["monitor", str(strange), "--run", str(run)])
    assert stopped.value.code == 1


def test_commands(run: Path, new: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"data.root": str(finished / "world"), **SMALL}
    config = run.parent / "c.yaml"
    config.write_text("{}")
    call = ["quantize", str(config), "--out", str(run), "--json"]
    call += [part for key, value in flags.items() for part in (f"--{key}", value)]
    main([*call, "--append", str(new)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["appended"] == 20
    main([*call, "--refit"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["version"] == 2
    main([*call, "--rollback", "1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["versions"] == [1, 2]
    with pytest.raises(SystemExit) as stopped:
        main([*call, "--refit", "--rollback", "1"])
    assert stopped.value.code == 2


def test_a_changed_setting_makes_a_version_too(run: Path, finished: Path) -> None:
    flags = {"data.root": str(finished / "world"), **SMALL, "quantizer.width": "4"}
    list(run_stages(load_config(flags=flags, environment={}), run, last="quantize"))
    assert codes_of(run)["version"].unique().to_list() == [2]
    assert (run / "codes" / "versions" / "1" / "codes.parquet").is_file()


def test_faults_leave_the_codes(run: Path, new: Path, tmp_path: Path) -> None:
    before = hashes(run / "codes")
    with pytest.raises(InputError, match="no such file"):
        append_items(run, tmp_path / "none.parquet")
    assert hashes(run / "codes") == before
    (run / "codes" / "quality.json").write_text("{}")
    with pytest.raises(ArtifactError, match="changed since"):
        append_items(run, new)
    with pytest.raises(ArtifactError, match="no finished codes"):
        drift(tmp_path, new)
