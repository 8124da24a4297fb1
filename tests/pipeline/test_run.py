"""The whole story on a tiny world: artefacts, skipping, killing, leaking, coding new items."""

import hashlib
import html
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from qarm.cli import main
from qarm.cli.output import print_results
from qarm.config import Config, load_config
from qarm.core.atomic_io import read_json, write_json
from qarm.core.parallel.torchrun import Processes
from qarm.core.run_folder import read_manifest
from qarm.data.codes import Codes
from qarm.data.run_inputs import Run
from qarm.demo import WorldSpec, build_world
from qarm.errors import ArtifactError, InputError
from qarm.pipeline import STAGES, run_stages
from qarm.pipeline import run as pipeline_run
from qarm.quantizer.versions.lifecycle import append_items
from qarm.recommender.code_embedding import read_pool
from qarm.recommender.ranking.model import Ranker
from qarm.report.verdict import run_verdict
from qarm.schemas import SCHEMAS, schema_of
from qarm.schemas.results import Summary

SMALL = {
    "pairs.user2item.epochs": "2",
    "encoder.epochs": "2",
    "encoder.min_steps": "1",
    "retriever.min_steps": "1",
    "retriever.epochs": "1",
    "encoder.dim": "32",
    "quantizer.width": "8",
    "quantizer.nearest": "5",
    "ranker.epochs": "2",
    "ranker.dim": "8",
    "ranker.negatives.eval": "10",
}
ARTEFACTS = [
    "check/check.json",
    "pairs/pairs.parquet",
    "pairs/quality.json",
    "pairs/rejected.parquet",
    "encoder/config.json",
    "encoder/model.safetensors",
    "encoder/README.md",
    "encoder/metrics.jsonl",
    "embeddings/embeddings.parquet",
    "embeddings/raw.parquet",
    "embeddings/quality.json",
    "embeddings/neighbours.json",
    "codes/codes.parquet",
    "codes/pool.parquet",
    "codes/quality.json",
    "codes/quantizer/config.json",
    "codes/quantizer/model.safetensors",
    "recommender/eval.parquet",
    "recommender/results.json",
    "recommender/id+rq+vq/model.safetensors",
    "report/index.html",
    "report/summary.json",
    "report/tree.json",
    "report/explorer.json",
    "report/explorer.html",
]


GAIN = {"negatives": "uniform", "slice": "all", "method": "id+rq", "against": "id", "measure": "gauc"}
GAIN |= {"mean": 0.0923, "low": 0.0835, "high": 0.1011, "error": 0.0045, "p": 0.001}
MEANS = {"auc": 0.7, "logloss": 0.4, "calibration": 1.0, "gauc": 0.7, "uauc": 0.7, "rows": 10, "users": 5}
MEANS |= {"negatives": "uniform", "slice": "all", "gauc_spread": None, "uauc_spread": None}
COMPARED = {
    "seeds": [0],
    "catalogue": [{"method": "id", "recall": 0.1, "ndcg": 0.1}],
    "means": [{**MEANS, "method": name} for name in ("id", "id+rq")],
    "differences": [GAIN],
    "primary": {**GAIN, "smallest_effect": 0.01},
    "holm": {},
}


def config_of(world: Path, **flags: str) -> Config:
    return load_config(flags={"data.root": str(world), **SMALL, **flags}, environment={})


def arguments(world: Path) -> list[str]:
    return [part for key, value in {"data.root": str(world), **SMALL}.items() for part in (f"--{key}", value)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_world(folder, seed=3, spec=WorldSpec(items=120, users=60, events_per_user=30))
    return folder


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run[1]"  # a name, not a pattern
    stages = list(run_stages(config_of(world), folder))
    assert [done.stage for done in stages] == [stage.name for stage in STAGES]
    assert not any(done.fresh for done in stages)
    return folder.rename(folder.with_name("run"))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_artefact_is_there_and_nothing_is_half(run: Path) -> None:
    assert [name for name in ARTEFACTS if not (run / name).is_file()] == []
    assert not list(run.rglob("*.tmp"))
    assert not list(run.rglob("*.pkl"))
    assert not (run / ".partial").exists()


def test_every_json_file_has_the_shape_that_its_schema_says(run: Path) -> None:
    foreign = {"encoder/text", "encoder/image", "encoder/audio"}  # formats of the encoders' libraries
    checked = set()
    for path in run.rglob("*.json*"):
        name = path.relative_to(run).as_posix()
        if any(name.startswith(f"{folder}/") for folder in foreign):
            continue
        schema = schema_of(name)
        assert schema is not None, name
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        for line in lines:
            schema.model_validate_json(line)
        checked.add(schema)
    elsewhere = ("codes/churn.json", "compare/")  # tested where they are written
    assert checked == {schema for name, schema in SCHEMAS.items() if not name.startswith(elsewhere)}
    with pytest.raises(ValidationError, match="extra"):
        SCHEMAS["check/check.json"].model_validate({"items": 1, "extra": 2})


def test_tables_have_the_columns_of_the_design(run: Path) -> None:
    pairs = pl.read_parquet_schema(run / "pairs/pairs.parquet")
    assert dict(pairs) == {
        "trigger_id": pl.String,
        "target_id": pl.String,
        "source": pl.String,
        "score": pl.Float32,
        "weight": pl.Float32,
        "count": pl.Int32,
    }
    codes = pl.read_parquet(run / "codes/codes.parquet")
    assert codes.schema["rq"] == pl.Array(pl.Int32, 3)
    assert codes.schema["vq"] == pl.Array(pl.Int32, 5)
    assert codes.height == 120
    pool = dict(pl.read_parquet(run / "codes/pool.parquet").iter_rows())
    for item, nearest in codes.select("item_id", "vq").iter_rows():
        assert item not in {pool[entry] for entry in nearest}


def test_a_second_call_does_no_work_and_says_so(
    run: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    started = time.perf_counter()
    main(["run", str(config), "--out", str(run), *arguments(world)])
    assert time.perf_counter() - started < 5
    assert "every stage is fresh" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for name in (".lock", "qarm.log"):  # the log says that the command was given
        before.pop(run / name, None)
        after.pop(run / name)
    assert after == before


def test_a_changed_setting_redoes_only_what_depends_on_it(run: Path, world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = config_of(world, **{"ranker.variants": "[id]"})
    fresh = {done.stage: done.fresh for done in run_stages(config, copy)}
    assert [name for name, skipped in fresh.items() if not skipped] == ["train", "report"]


def test_the_vq_table_starts_from_the_runs_pool(run: Path, world: Path, tmp_path: Path) -> None:
    """With next to no learning, rows end as far apart as the pool's vectors are on four principal axes."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    flags = {"ranker.start": "pool", "ranker.lr": "1e-9", "ranker.epochs": "1", "ranker.variants": "[id+vq]"}
    list(run_stages(config_of(world, **flags), copy))
    found = Ranker.from_pretrained(copy / "recommender" / "id+vq").item.code.nearest.weight.detach().numpy()
    pool = read_pool(copy / "codes" / "nearest" / "model.safetensors").astype(np.float64)
    pool -= pool.mean(axis=0)
    expected = pool @ np.linalg.svd(pool, full_matrices=False)[2][: found.shape[1]].T
    apart = [np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in (found, expected)]
    np.testing.assert_allclose(*(each / each.mean() for each in apart), atol=1e-3)


def test_a_finished_comparison_comes_into_the_report(run: Path, world: Path, tmp_path: Path) -> None:
    SCHEMAS["compare/results.json"].model_validate(COMPARED)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "compare").mkdir()
    write_json(copy / "compare" / "results.json", COMPARED)
    fresh = {done.stage: done.fresh for done in run_stages(config_of(world), copy)}
    assert [name for name, skipped in fresh.items() if not skipped] == ["report"]
    page = (copy / "report" / "index.html").read_text()
    assert "Comparison by the protocol" in page
    assert "+0.0923 [+0.0835, +0.1011]" in page
    assert 'id="chart-uniform-all"' in page
    assert "Comparison by the protocol" not in (run / "report" / "index.html").read_text()
    assert all(done.fresh for done in run_stages(config_of(world), copy))


def test_terminal_page_and_json_have_the_same_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(run)
    printed = capsys.readouterr().out
    page = html.unescape((run / "report" / "index.html").read_text())
    verdict = Summary.model_validate(read_json(run / "report" / "summary.json")).verdict
    assert verdict is not None
    assert f"verdict: {verdict.outcome}. {verdict.sentence}" in printed
    for finding in verdict.findings:
        assert finding.sentence in printed
        assert finding.sentence in page
    assert page.index(verdict.sentence) < page.index('<ol class="strip"') < page.index('<h2 id="results">')
    # a report of an earlier qarm has none; it is made of the run's figures
    bare = Summary.model_validate(read_json(run / "report" / "summary.json"))
    bare.verdict = None
    assert run_verdict(bare, run) == verdict


def test_the_report_names_every_file_with_its_hash(run: Path) -> None:
    page = (run / "report" / "index.html").read_text()
    for stage in ("check", "pairs", "encoder", "embeddings", "codes", "recommender"):
        for name, found in read_manifest(run / stage).outputs.items():
            assert found in page, (stage, name)


def test_same_seed_same_bytes_after_a_kill(run: Path, world: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL wherever it is, the next call ends with the codes of an uninterrupted run."""
    folder = tmp_path / "killed"
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    command = [sys.executable, "-m", "qarm", "run", str(config), "--out", str(folder), *arguments(world)]
    for marker in ("pairs/manifest.json", "embeddings/manifest.json", "codes/manifest.json"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (folder / marker).exists():
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (folder / marker).exists()
    subprocess.run(command, check=True, capture_output=True)
    report = ("report/tree.json", "report/explorer.json", "report/explorer.html")
    for name in ("pairs/pairs.parquet", "codes/codes.parquet", "recommender/results.json", *report):
        assert sha(folder / name) == sha(run / name), name
    assert not (folder / ".partial").exists()


def test_the_future_changes_nothing_learned(run: Path, world: Path, tmp_path: Path) -> None:
    """Later events dealt out anew: pairs, codebooks and pool keep every byte."""
    shuffled = tmp_path / "world"
    shutil.copytree(world, shuffled)
    log = pl.read_parquet(world / "interactions.parquet")
    cut = log["timestamp"].sort()[int(0.75 * log.height)]
    later = pl.col("timestamp") >= cut
    users = log.filter(later)["user_id"].shuffle(seed=1)
    changed = pl.concat([log.filter(~later), log.filter(later).with_columns(users)])
    changed.write_parquet(shuffled / "interactions.parquet")
    folder = tmp_path / "run"
    list(run_stages(config_of(shuffled), folder, last="quantize"))
    for name in (
        "pairs/pairs.parquet",
        "encoder/model.safetensors",
        "codes/quantizer/model.safetensors",
        "codes/codes.parquet",
        "codes/pool.parquet",
    ):
        assert sha(folder / name) == sha(run / name), name


def test_new_items_get_the_codes_that_the_run_would_give(run: Path, world: Path) -> None:
    items = pl.read_parquet(world / "items.parquet").head(40)
    new = world / "new.parquet"
    items.with_columns(item_id=pl.lit("new-") + pl.col("item_id")).write_parquet(new)
    out = run.parent / "new_codes.parquet"
    main(["encode", str(new), "--run", str(run), "--out", str(out)])
    codes = pl.read_parquet(out)
    known = pl.read_parquet(run / "codes/codes.parquet")
    assert codes["item_id"].to_list() == [f"new-{item}" for item in items["item_id"]]
    assert codes.schema == known.schema
    expected = items.select("item_id").join(known, on="item_id", how="left", maintain_order="left")
    assert codes["rq"].to_list() == expected["rq"].to_list()


def test_padded_ids_of_a_csv_stay_as_they_are(run: Path, tmp_path: Path) -> None:
    """In what `encode` writes, whose ending decides the format, and in what `--append` adds."""
    new = tmp_path / "new.csv"
    rows = ["00042,00123,1.10", "42,123,1.1", "1e3,2024-01-02,true"]
    new.write_text(
        "item_id,title,description,image_path,audio_path\n" + "".join(f"{row},,\n" for row in rows)
    )
    ids = ["00042", "42", "1e3"]
    main(["encode", str(new), "--run", str(run), "--out", str(tmp_path / "codes[1].csv")])
    lines = (tmp_path / "codes[1].csv").read_text().splitlines()
    assert lines[0].startswith("item_id,rq_1,rq_2,rq_3,vq_1,")
    assert [line.split(",")[0] for line in lines[1:]] == ids
    with pytest.raises(SystemExit) as stop:
        main(["encode", str(new), "--run", str(run), "--out", str(tmp_path / "codes.xlsx")])
    assert stop.value.code == 2
    assert not (tmp_path / "codes.xlsx").exists()
    copy = Path(shutil.copytree(run, tmp_path / "run[1]"))
    assert append_items(copy, new).appended == 3
    assert Codes.read(copy / "codes" / "codes.parquet").item_ids[-3:] == ids


def test_bad_input_leaves_earlier_artefacts(run: Path, world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "world"
    shutil.copytree(world, broken)
    items = pl.read_parquet(world / "items.parquet")
    pl.concat([items, items.head(2)]).write_parquet(broken / "items.parquet")
    before = {path: sha(path) for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="duplicate ids"):
        list(run_stages(config_of(broken), run))
    with pytest.raises(InputError, match=r"need at least width=4096; lower quantizer\.width"):
        list(run_stages(config_of(world, **{"quantizer.width": "4096"}), run))
    assert {
        path: sha(path) for path in run.rglob("*") if path.is_file() and ".partial" not in path.parts
    } == before


def test_unreadable_media_are_named_and_their_items_go_on(world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "world"
    shutil.copytree(world, broken)
    items = pl.read_parquet(broken / "items.parquet")
    (broken / items["image_path"][0]).write_bytes(b"no picture")
    (broken / items["audio_path"][1]).unlink()
    config = config_of(broken)
    check = next(iter(run_stages(config, tmp_path / "run", last="check")))
    assert (check.rows["bad_images"], check.rows["bad_sounds"]) == (1, 1)


def test_lost_media_are_refused(run: Path, world: Path, tmp_path: Path) -> None:
    """Without its media folder, a table with every item as new."""
    from qarm.quantizer.coder import encode

    lost = tmp_path / "items.parquet"
    pl.read_parquet(world / "items.parquet").with_columns("new-" + pl.col("item_id")).write_parquet(lost)
    before = {path: sha(path) for path in run.rglob("*") if path.is_file()}
    for refused in (encode, append_items):
        with pytest.raises(InputError, match=r"no such file.*--allow-unreadable"):
            refused(run, lost)
    assert {path: sha(path) for path in run.rglob("*") if path.is_file()} == before
    assert len(encode(run, lost, allow_unreadable=True)) == pl.read_parquet(lost).height
    shutil.copy(world / "interactions.parquet", tmp_path)
    shutil.copy(world / "items.parquet", lost)
    with pytest.raises(InputError, match=r"pictures cannot be read, need at most data.max_unreadable = 0.05"):
        list(run_stages(config_of(tmp_path), tmp_path / "run", last="check"))


def test_encode_needs_a_finished_run(tmp_path: Path, world: Path) -> None:
    from qarm.quantizer.coder import encode

    with pytest.raises(ArtifactError, match="no finished codes"):
        encode(tmp_path, world / "items.parquet")


def test_torchrun_shares_the_train_stage(
    run: Path, world: Path, torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    """The first of two processes writes what one would, but for what dropout drew."""
    folder, config = tmp_path / "run", tmp_path / "c.yaml"
    shutil.copytree(run, folder)
    config.write_text("ranker: {variants: [id]}")
    done = torchrun("-m", "qarm", "train", config, "--out", folder, *arguments(world))
    assert done.stdout.count("train  ") == 1
    results = [read_json(at / "recommender" / "results.json")["rows"] for at in (run, folder)]
    own, shared = ([r for r in rows if (r["variant"], r["slice"]) == ("id", "all")] for rows in results)
    assert len(own) == len(shared) == 1
    assert shared[0]["auc"] == pytest.approx(own[0]["auc"], abs=0.05)
    assert not list(folder.rglob("progress*"))
    assert not (folder / ".partial").exists()


def test_torchrun_processes_with_other_settings_refuse(
    run: Path, world: Path, torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    """Each process has a config of its own; neither trains, and the run stays as it was."""
    folder, script = tmp_path / "run", tmp_path / "train.py"
    shutil.copytree(run, folder)
    script.write_text(
        "import os, sys\nfrom qarm.cli import main\n"
        "main([*sys.argv[1:], '--set', f'ranker.lr=0.0{1 + int(os.environ[\"RANK\"])}'])\n"
    )
    (tmp_path / "c.yaml").write_text("ranker: {variants: [id]}")
    done = torchrun(script, "train", tmp_path / "c.yaml", "--out", folder, *arguments(world), check=False)
    assert done.returncode != 0
    assert "processes disagree on the run: ranker.lr is 0.01 on rank 0 and 0.02 on rank 1" in done.stderr
    assert "InputError" not in done.stderr  # one line; the traceback is the launcher's own
    assert read_json(folder / "recommender/results.json") == read_json(run / "recommender/results.json")


def test_torchrun_shares_no_other_stage(
    run: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_run, "torchrun_processes", Processes)
    shutil.copytree(run, tmp_path / "run")
    assert all(done.fresh for done in run_stages(config_of(world), tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "codes")
    with pytest.raises(InputError, match="stage quantize is not finished, and torchrun's processes share"):
        list(run_stages(config_of(world), tmp_path / "run"))


def test_what_only_the_ranker_reads_leaves_earlier_stages_fresh(tmp_path: Path) -> None:
    flags = {
        "ranker.time": "true",
        "data.users.features": "[age]",
        "data.interactions.labels": "{like: liked}",
    }
    plain, run = (Run(load_config(flags=f, environment={}), tmp_path) for f in ({}, flags))
    changed = run.settings(("data", "ranker"))
    assert plain.settings(("data", "ranker"))["ranker"] | {"time": True} == changed["ranker"]
    assert changed["data"]["users"]["features"] == ["age"]
    assert changed["data"]["interactions"]["labels"] == {"like": "liked"}
    assert "users" not in run.settings(("data",))["data"]
    assert run.settings(("data",)) == plain.settings(("data",))  # mining need not be done again
