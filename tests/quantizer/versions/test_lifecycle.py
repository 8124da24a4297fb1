"""Codes that live on in a run folder: append, refit, roll back, watch; killed or refused, nothing is lost."""

import hashlib
import json
import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hardening.tiny import save_bert
from qarm.cli import main
from qarm.config import load_config
from qarm.core.atomic_io import digest, read_json, write_json
from qarm.data.run_inputs import Run
from qarm.errors import ArtifactError, InputError
from qarm.pipeline import run_stages
from qarm.quantizer.coder import encode
from qarm.quantizer.versions.archive import valid_since
from qarm.quantizer.versions.lifecycle import append_items, drift, refit_codes, roll_back
from qarm.schemas import SCHEMAS

SMALL = {
    "encoder.text": "bert",
    "encoder.image": "null",
    "encoder.audio": "null",
    "data.items.image": "null",
    "data.items.audio": "null",
    "pairs.user2item.epochs": "1",
    "pairs.user2item.dim": "8",
    "encoder.epochs": "2",
    "encoder.min_steps": "1",
    "encoder.dim": "16",
    "encoder.hidden": "16",
    "quantizer.width": "8",
    "quantizer.nearest": "5",
}
TOPICS = [[f"word{topic}{letter}" for letter in "abcdefgh"] for topic in range(6)]
WORDS = [word for topic in TOPICS for word in topic]


def make_shop(folder: Path) -> None:
    """100 items of six topics, 60 users who keep to one each; `new.parquet` has 20 items more."""
    draw = random.Random(5)  # noqa: S311 - not for secrets
    items = [
        {
            "item_id": f"i{number:03d}",
            "title": " ".join(draw.sample(TOPICS[number % 6], 4)),
            "description": " ".join(draw.sample(WORDS, 2)),
        }
        for number in range(120)
    ]
    events = [
        {"user_id": f"u{user}", "item_id": f"i{item:03d}", "timestamp": 100 * step + user}
        for user in range(60)
        for step, item in enumerate(draw.sample(range(user % 6, 100, 6), 14))
    ]
    folder.mkdir()
    pl.DataFrame(items[:100]).write_parquet(folder / "items.parquet")
    pl.DataFrame(items[100:]).write_parquet(folder / "new.parquet")
    pl.DataFrame(events).write_parquet(folder / "interactions.parquet")
    with torch.random.fork_rng(devices=[]):
        save_bert(folder / "bert", WORDS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the shop's 100 items, beside it."""
    folder = tmp_path_factory.mktemp("lifecycle")
    make_shop(folder / "world")
    SMALL["encoder.text"] = str(folder / "world" / "bert")
    config = load_config(flags={"data.root": str(folder / "world"), **SMALL}, environment={})
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


def test_drift_tells_new_from_strange(
    run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift(run, new).items == 20
    one = pl.read_parquet(new).head(1)
    copies = pl.concat([one.with_columns(item_id=pl.lit(f"copy-{n}")) for n in range(300)])
    strange = new.with_name("strange.parquet")
    copies.write_parquet(strange)
    assert any("hottest_ratio" in sentence for sentence in drift(run, strange).exceeded)
    with pytest.raises(SystemExit) as stopped:
        main(["monitor", str(strange), "--run", str(run)])
    assert stopped.value.code == 3
    shown = capsys.readouterr()
    assert "limits            stability_excess 0.25, energy_ratio 1.25, hottest_ratio 3; 300 new" in shown.out
    assert "hottest_ratio" in shown.err
    limits = [f"--{name}=1e9" for name in ("stability-excess", "energy-ratio", "hottest-ratio")]
    main(["monitor", str(strange), "--run", str(run), *limits])
    (run / "codes" / "profile.json").write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        main(["monitor", str(strange), "--run", str(run)])
    assert stopped.value.code == 1


def test_drift_is_the_same_before_and_after_its_items_were_appended(run: Path, new: Path) -> None:
    before = drift(run, new)
    append_items(run, new)
    assert drift(run, new) == before
    refit_codes(run)
    assert drift(run, new).items_at_fit == before.items_at_fit + 20


def test_commands_go_on_with_the_settings_of_the_run(
    run: Path, new: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RUN alone is enough; a config or a flag must say the same, and no other stage runs."""

    def call(*arguments: str) -> dict[str, object]:
        main(["quantize", *arguments, "--out", str(run), "--json"])
        line, *more = capsys.readouterr().out.splitlines()
        assert not more
        return json.loads(line)

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["quantize", *arguments, "--out", str(run)])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    (empty := run.parent / "empty.yaml").write_text("{}")
    flags = [part for key, value in SMALL.items() for part in (f"--{key}", value)]
    before = hashes(run)
    message = refused(str(empty), "--append", str(new))
    assert "encoder.dim: the run has 16, given 128\n" in message
    assert "quantizer.width: the run has 8, given auto\n" in message
    assert "split" not in message
    assert "pairs.window: the run has 50, given 9" in refused("--refit", "--pairs.window", "9")
    assert "quantizer.levels: the run has 3, given 2" in refused("--rollback", "1", "--quantizer.levels", "2")
    assert "no config; give one" in refused()
    assert "got --refit and --rollback" in refused("--refit", "--rollback", "1")
    assert hashes(run) == before
    assert call("--append", str(new))["appended"] == 20
    assert call(str(empty), *flags, "--refit")["version"] == 2
    assert call("--rollback", "1", "--quantizer.width", "8")["versions"] == [1, 2]
    after = hashes(run)
    assert {name for name, value in before.items() if after.get(name) != value} == {
        "codes/codes.parquet",
        "codes/manifest.json",
    }
    assert call("--rollback", "1")["version"] == 1


def test_a_changed_setting_makes_a_version_too(run: Path, finished: Path) -> None:
    flags = {"data.root": str(finished / "world"), **SMALL, "quantizer.width": "4"}
    list(run_stages(load_config(flags=flags, environment={}), run, last="quantize"))
    assert codes_of(run)["version"].unique().to_list() == [2]
    assert (run / "codes" / "versions" / "1" / "codes.parquet").is_file()


def test_a_changed_setting_forgets_no_appended_item(run: Path, new: Path, finished: Path) -> None:
    append_items(run, new)
    before = codes_of(run)
    flags = {"data.root": str(finished / "world"), **SMALL}

    def again(**more: str) -> None:
        changed = {key.replace("__", "."): value for key, value in more.items()}
        list(run_stages(load_config(flags=flags | changed, environment={}), run, last="quantize"))

    again(quantizer__width="4")
    after = codes_of(run)
    assert after["item_id"].to_list() == before["item_id"].to_list()
    assert after["version"].unique().to_list() == [2]
    assert after["rq"].to_numpy().max() < 4
    assert append_items(run, new).content() == {"items": 120, "appended": 20, "repeated": True}
    assert refit_codes(run).items == 120
    files = hashes(run)
    for change in ({"encoder__epochs": "1"}, {"pairs__window": "9"}, {"split__test": "0.3"}):
        with pytest.raises(InputError, match=r"codes of 20 appended items .* add them to that table"):
            again(**change)
    assert hashes(run) == files


def test_appended_items_that_the_catalogue_has_by_now_are_its_own(
    finished: Path, new: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    world = Path(shutil.copytree(finished / "world", tmp_path / "world"))
    append_items(run, new)
    pl.concat([pl.read_parquet(world / "items.parquet"), pl.read_parquet(new)]).write_parquet(
        world / "items.parquet"
    )
    config = load_config(flags={"data.root": str(world), **SMALL}, environment={})
    list(run_stages(config, run, last="quantize"))
    assert codes_of(run).height == 120
    assert not (run / "codes" / "appended.parquet").exists()


def test_codes_of_an_earlier_encoder_are_not_gone_on_with(run: Path, new: Path, finished: Path) -> None:
    """As after a run that was killed between align and quantize."""
    flags = {"data.root": str(finished / "world"), **SMALL, "encoder.epochs": "1"}
    list(run_stages(load_config(flags=flags, environment={}), run, last="align"))
    for work in (append_items, encode, drift):
        with pytest.raises(ArtifactError, match="embeddings were made from earlier files; finish what was"):
            work(run, new)
    with pytest.raises(ArtifactError, match="made from earlier files"):
        refit_codes(run)


def test_readers_beside_rollbacks_see_one_version(run: Path, new: Path) -> None:
    """A version's codes belong to its codebooks, however often they change under the readers."""
    append_items(run, new)
    refit_codes(run)
    expected = {2: encode(run, new)}
    roll_back(run, 1)
    expected[1] = encode(run, new)
    assert not np.array_equal(expected[1].rq, expected[2].rq)
    done = threading.Event()

    def write() -> None:
        for turn in range(40):
            roll_back(run, 2 - turn % 2)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        found = encode(run, new)
        np.testing.assert_array_equal(found.rq, expected[found.version].rq)
        np.testing.assert_array_equal(found.vq, expected[found.version].vq)
        seen.append(found.version)
    writer.join()
    assert len(seen) > 1


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
