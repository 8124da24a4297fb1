"""The comparison on a tiny world: results, resuming, and what may not leak."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tests.comparison.conftest import TINY, config_of, seed_of

from qarm.cli import main
from qarm.comparison.compare import compare_variants
from qarm.comparison.settings_search import tuned_settings
from qarm.comparison.variants import DEFAULT, FAMILIES, parse_variant
from qarm.config import load_config
from qarm.core.atomic_io import read_json, read_model
from qarm.core.tables.parquet import write_parquet
from qarm.errors import ConfigError, InputError
from qarm.report.comparison import comparison_page
from qarm.schemas import schema_of
from qarm.schemas.comparison import Compared


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    compare_variants(config_of(world), out, progress=lambda line: None)
    return out


def test_every_variant_and_anchor_has_its_figures(finished: Path) -> None:
    results = read_json(finished / "compare" / "results.json")
    methods = {entry["method"] for entry in results["means"]}
    anchors = {"popularity", "item-kNN", "content-kNN", "sequential kNN", "EASE", "ALS"}
    assert methods == {*DEFAULT, *anchors}
    assert results["edition"] == 2
    assert results["left_out"] == ["like-rate: the log has no labels 0"]
    assert {answer["negatives"] for answer in results["answers"]} == {"uniform", "popular"}
    warm = [gain for gain in results["differences"] if gain["slice"] == "warm" and gain["against"] == "id"]
    ahead = [gain for gain in warm if gain["method"] in anchors and gain["low"] > 0]
    assert [g for g in results["anchors_ahead"] if g["against"] == "id"] == [
        gain for gain in ahead if gain["measure"] == "gauc"
    ]
    assert {entry["negatives"] for entry in results["means"]} == {"uniform", "popular"}
    assert {"all", "warm", "cold", "L1", "L6", "short histories"} <= {e["slice"] for e in results["means"]}
    assert results["primary"]["method"] == "id+rq+vq"
    assert results["primary"]["smallest_effect"] > 0
    tested = [frozenset(claim.split(" minus ")) for claim in results["holm"]]
    assert len(set(tested)) == len(tested)  # no pair both ways round
    assert frozenset(("id", "id+rq+vq")) not in tested
    assert {entry["method"] for entry in results["catalogue"]} == methods
    assert {"recall", "ndcg", "recall of cold items"} <= {*results["catalogue"][0]}
    table = (finished / "compare" / "results.md").read_text()
    assert all(name in table for name in methods)


def test_the_page_shows_every_variant_and_needs_no_network(finished: Path) -> None:
    page = (finished / "compare" / "index.html").read_text()
    assert all(name in page for name in DEFAULT)
    assert "Primary comparison" in page
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)  # plotly's own text holds addresses
    assert "http" not in outside
    assert not re.findall(r"<script[^>]*src", page)
    results = read_model(finished / "compare" / "results.json", Compared)
    assert comparison_page(results, name=finished.name) == page


def test_every_json_file_has_the_shape_that_its_schema_says(finished: Path) -> None:
    checked = set()
    for path in finished.rglob("compare/**/*.json"):
        schema = schema_of(path.relative_to(finished).as_posix())
        assert schema is not None, path
        schema.model_validate_json(path.read_text())
        checked.add(schema.__name__)
    assert checked == {"ComparedKey", "ComparedTiming", "Compared", "ComparedCell", "FileHashes", "Searched"}


def test_every_family_has_its_own_search_with_the_same_budget(world: Path, finished: Path) -> None:
    results = read_model(finished / "compare" / "results.json", Compared)
    assert set(results.searches) == set(FAMILIES)
    assert {len(search.rounds[0]) for search in results.searches.values()} == {2}
    assert results.searches["codes"].variants == ["id+rq+vq"]
    tuned = yaml.safe_load((finished / "compare" / "tuned.yaml").read_text())["compare"]["tuned"]
    assert tuned == {family: search.chosen for family, search in results.searches.items()}
    text = (finished / "compare" / "results.md").read_text()
    assert all(f"Ranker settings of `{family}`" in text for family in FAMILIES)
    cells = finished / "compare" / "seed-1" / "cells"
    for family, variant in (("codes", "id+rq+vq@placebo"), ("id-free", "frozen")):
        assert read_json(cells / f"{variant}.json")["dim"] == tuned[family]["dim"]


def test_frozen_settings_are_taken_without_a_search(world: Path, tmp_path: Path) -> None:
    tuned = "{id: {dim: 3, id_decay: 1}, codes: {dim: 5}}"
    flags = {"compare.variants": "[id, id+rq+vq]", "compare.seeds": "[0]", "compare.tuned": tuned}
    results = compare_variants(config_of(world, **flags), tmp_path, progress=lambda line: None)
    assert results.searches == {}
    assert not (tmp_path / "compare" / "search").exists()
    cells = tmp_path / "compare" / "seed-0" / "cells"
    assert [read_json(cells / f"{name}.json")["dim"] for name in ("id", "id+rq+vq")] == [3, 5]
    flags["compare.tuned"] = "{id: {dim: -3}, ids: {dim: 2}}"
    with pytest.raises(InputError, match="compare.tuned"):
        compare_variants(config_of(world, **flags), tmp_path / "other", progress=lambda line: None)


def test_figures_are_computed_again_from_the_evidence(finished: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "recompute.py"
    command = [sys.executable, str(script), str(finished), "--methods", "id", "id+rq+vq", "EASE"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uniform  cold  id+rq+vq minus id" in done.stdout
    users = pl.read_parquet(finished / "compare" / "evidence" / "users-0.parquet")
    kept = users.filter(slice="all", negatives="uniform", method="id")
    results = read_model(finished / "compare" / "results.json", Compared)
    mean = next(m for m in results.means if (m.method, m.slice, m.negatives) == ("id", "all", "uniform"))
    others = pl.read_parquet(finished / "compare" / "evidence" / "users-1.parquet")
    others = others.filter(slice="all", negatives="uniform", method="id")
    gaucs = [(part["auc"] * part["rows"]).sum() / part["rows"].sum() for part in (kept, others)]
    assert np.mean(gaucs) == pytest.approx(mean.gauc, abs=1e-9)
    rows = pl.read_parquet(finished / "compare" / "evidence" / "seed-0-uniform.parquet")
    assert {"user_id", "item_id", "label", "frequency_group", "history", "score id"} <= set(rows.columns)


def test_the_wide_id_has_as_many_parameters_as_the_largest(finished: Path) -> None:
    cells = finished / "compare" / "seed-0" / "cells"
    sizes = {name: read_json(cells / f"{name}.json")["parameters"] for name in DEFAULT}
    wide = sizes.pop("id-wide")
    assert wide >= max(sizes.values())
    assert wide < 1.5 * max(sizes.values())


def test_finished_cells_are_kept(world: Path, finished: Path) -> None:
    results = finished / "compare" / "results.json"
    before, lines = results.read_bytes(), []
    gone = finished / "compare" / "seed-1" / "scores" / "id-catalogue.npy"
    scores = gone.read_bytes()
    gone.unlink()
    compare_variants(config_of(world), finished, progress=lines.append)
    assert len(lines) == 1
    assert "seed 1  id " in lines[0]
    assert gone.read_bytes() == scores
    assert results.read_bytes() == before


def test_the_command_prints_what_matters(
    world: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for key, value in TINY.items() for part in (f"--{key}", value)]
    file = finished / "config.yaml"
    file.write_text(f"data: {{root: {world}}}\n")
    main(["compare", str(file), "--out", str(finished), *flags])
    printed = capsys.readouterr().out
    tables = (finished / "compare" / "results.md").read_text()
    assert printed.splitlines()[0] == tables.splitlines()[0]
    results = read_model(finished / "compare" / "results.json", Compared)
    assert printed.startswith("**This set cannot support the claim.**") == bool(results.anchors_ahead)
    assert "Primary: id+rq+vq minus id" in printed
    assert "| content-kNN |" in printed
    assert str(finished / "compare" / "results.md") in printed
    main(["compare", str(file), "--out", str(finished), "--json", *flags])
    content = json.loads(capsys.readouterr().out)
    assert content["primary"]["method"] == "id+rq+vq"
    ahead = [(gain.method, gain.against, gain.negatives) for gain in results.anchors_ahead]
    assert [(g["method"], g["against"], g["negatives"]) for g in content["anchors_ahead"]] == ahead


def test_another_comparison_does_not_go_on_from_it(world: Path, finished: Path) -> None:
    with pytest.raises(InputError, match="other data or settings"):
        compare_variants(config_of(world, **{"ranker.dim": "8"}), finished)


def learned(root: Path, out: Path) -> dict[str, bytes]:
    """All that is learned, or learned from, by name: pairs, codebooks, codes, rows, settings, weights."""
    flags = {"compare.variants": "[id, id+rq+vq]", "compare.cold_items": "0.1"}
    config = config_of(root, **flags)
    seed = seed_of(config, out)
    sources = seed.sources
    write_parquet(out / "pairs.parquet", sources.pairs)
    codes, pool = sources.codes("aligned")
    codes.write(out / "codes.parquet")
    found = {name: (out / name).read_bytes() for name in ("pairs.parquet", "codes.parquet")}
    found |= {f"level {n}": book.tobytes() for n, book in enumerate(sources.codebooks("aligned"))}
    found["pool"] = "\n".join(pool).encode()
    for epoch in range(2):
        rows = seed.rows.epoch(epoch)
        arrays = {name: part for name, part in vars(rows).items() if isinstance(part, np.ndarray)}
        found |= {f"{name} of epoch {epoch}": part.tobytes() for name, part in arrays.items()}
        found[f"users of epoch {epoch}"] = "\n".join(rows.user_ids).encode()
    valid = seed.evaluation.valid
    for name in ("users", "items", "labels", "times", "events", "cold"):
        found[f"{name} of validation"] = getattr(valid, name).tobytes()
    read = (valid.history[start:end] for start, end in zip(valid.start, valid.end, strict=True))
    found["histories of validation"] = b"".join(past.tobytes() for past in read)
    seed.tuned = tuned_settings(seed, out, lambda line: None)
    found["search"] = (out / "tuned.yaml").read_bytes()
    seed.run(lambda line: None)
    for variant in config.compare.variants:  # losses, validation figures, the epoch kept, hash of the weights
        found[f"cell of {variant}"] = (out / "seed-0" / "cells" / f"{variant}.json").read_bytes()
    return found


def test_code_tables_start_from_what_their_codes_came_from(world: Path, tmp_path: Path) -> None:
    """Of aligned or raw vectors, by pool id; a placebo keeps the tables that its rows were dealt out of."""
    for start, given in (("pool", "pool_vectors"), ("codebooks", "codebooks"), ("random", None)):
        flags = {"ranker.start": start, "compare.cold_items": "0.1", "compare.variants": "[id+rq+vq, id]"}
        seed = seed_of(config_of(world, **flags), tmp_path / start)
        sources = seed.sources
        tables = {name: seed._table(parse_variant(f"id+rq+vq@{name}")) for name in ("raw", "placebo")}
        tables["aligned"] = seed._table(parse_variant("id+rq+vq"))
        assert (tables["aligned"].pool_vectors is None) == (given != "pool_vectors")
        assert (tables["aligned"].codebooks is None) == (given != "codebooks")
        if given == "pool_vectors":
            for name, vectors in (("aligned", sources.aligned), ("raw", sources.raw)):
                rows = vectors.rows(sources.codes(name)[1])
                rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
                np.testing.assert_allclose(tables[name].pool_vectors, rows, atol=1e-6)
            assert tables["placebo"].pool_vectors is tables["aligned"].pool_vectors


def test_the_future_changes_no_byte_of_what_is_learned(world: Path, tmp_path: Path) -> None:
    """Items of the last fifth are dealt out anew: all that is learned or chosen keeps every byte."""
    log = pl.read_parquet(world / "interactions.parquet").sort("timestamp")
    start = int(0.81 * log.height)
    dealt = log[start:].with_columns(pl.col("item_id").shuffle(seed=1))
    found = []
    for name, later in (("one", log[start:]), ("other", dealt)):
        root = tmp_path / name
        root.mkdir()
        pl.concat([log[:start], later]).write_parquet(root / "interactions.parquet")
        (root / "items.parquet").write_bytes((world / "items.parquet").read_bytes())
        found.append(learned(root, tmp_path / f"out-{name}"))
    one, other = found
    assert set(one) == set(other)
    expected = {"pairs.parquet", "codes.parquet", "level 2", "pool", "items of epoch 1", "history of epoch 0"}
    expected |= {"items of validation", "search", "cell of id+rq+vq"}
    assert expected <= set(one)
    assert [name for name in one if one[name] != other[name]] == []
    assert one["items of epoch 0"] != one["items of epoch 1"]  # negatives are drawn anew, and the same


def test_wrong_settings_are_all_told(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(world, **{"compare.variants": "[id, id, id@raw, colour]"})
    with pytest.raises(InputError) as caught:
        compare_variants(config, tmp_path / "out")
    assert len(caught.value.problems) == 4
    assert not (tmp_path / "out" / "compare").exists()
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{root: {world}}}\ncompare: {{windows: two}}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(file), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "compare.windows" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        load_config(file, environment={})


def test_other_seeds_of_one_comparison_are_no_other_comparison(
    world: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    lines: list[str] = []
    found = compare_variants(
        config_of(world, **{"compare.seeds": "[1]"}), tmp_path / "run", progress=lines.append
    )
    assert found.seeds == [1]
    assert lines == []
