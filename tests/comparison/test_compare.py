"""The comparison on a tiny world: windows, placebo, intervals by hand, resuming, and what may not leak."""

import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from qarm.cli import main
from qarm.comparison.answers import answers
from qarm.comparison.bootstrap import Judge, holm
from qarm.comparison.code_sources import Sources, event_groups, permuted
from qarm.comparison.compare import compare_variants
from qarm.comparison.seed_run import Seed
from qarm.comparison.successive_halving import halved, sampled
from qarm.comparison.variants import DEFAULT, parse_variant
from qarm.comparison.windows import cut, drawn_users
from qarm.config import Config, RankerConfig, load_config
from qarm.core.atomic_io import read_json, write_parquet
from qarm.data.codes import Codes
from qarm.data.interactions import Log, read_log
from qarm.data.run_inputs import Run
from qarm.demo import WorldSpec, build_world
from qarm.errors import ConfigError, InputError
from qarm.recommender.metrics import UserAuc
from qarm.report.comparison import comparison_page
from qarm.schemas import schema_of

TINY = {
    "pairs.user2item.epochs": "1",
    "encoder.image": "null",
    "encoder.audio": "null",
    "encoder.epochs": "1",
    "encoder.min_steps": "1",
    "encoder.dim": "16",
    "quantizer.width": "4",
    "quantizer.nearest": "3",
    "ranker.epochs": "1",
    "ranker.dim": "4",
    "ranker.hidden": "[8]",
    "compare.seeds": "[0, 1]",
    "compare.negatives": "5",
    "compare.catalogue_users": "20",
    "compare.search": "2",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return build_world(folder, seed=0, spec=WorldSpec(items=120, users=60, events_per_user=25)).folder


def config_of(world: Path, **flags: str) -> Config:
    return load_config(None, flags={"data.root": str(world), **TINY, **flags}, environment={})


def seed_of(config: Config, out: Path) -> Seed:
    """Seed 0 of a comparison, nothing trained."""
    run, compare = Run(config, out), config.compare
    split = config.split.model_dump(include={"kind", "test", "valid"})
    windows = cut(run.tables[1], split, windows=compare.windows, cold_items=compare.cold_items, seed=0)
    sources = Sources(run.tables[0], windows, config, cache=run.cache, seed=0)
    return Seed(sources, config, out, variants=[parse_variant(name) for name in compare.variants])


# ---- variants -----------------------------------------------------------------------------------


def test_the_protocols_variants_are_read() -> None:
    found = {name: parse_variant(name) for name in DEFAULT}
    assert found["id+rq+vq@placebo"].source == "placebo"
    assert found["id+rq+vq@fixed"].fixed
    assert found["id+rq+vq@fixed"].source == "aligned"
    assert found["id-wide"].wide
    assert found["id-wide"].features == "id"


@pytest.mark.parametrize("name", ["id@raw", "id+rq@other", "id+colour", "cross", "id-wide+rq"])
def test_other_variants_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="variant"):
        parse_variant(name)


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["time", "user_tail", "last_out"])
def test_windows_follow_one_another(world: Path, kind: str) -> None:
    log = read_log(world / "interactions.parquet")
    split = {"kind": kind, "test": 0.2, "valid": 0.1}
    found = cut(log, split, windows="three", cold_items=0.1, seed=0)
    assert len(found.pairs) + len(found.rows) == len(found.split.train)
    assert abs(len(found.pairs) - len(found.rows)) < 0.2 * len(found.split.train)
    last = found.pairs.frame.group_by("user_id").agg(last=pl.col("time").max())
    both = found.rows.frame.join(last, on="user_id")
    assert (both["time"] >= both["last"]).all()
    cold = set(log.items) - set(found.split.train.items)
    assert cold
    assert not cold & ({*found.pairs.items} | {*found.rows.items})


def test_one_window_serves_both(world: Path) -> None:
    log = read_log(world / "interactions.parquet")
    found = cut(log, {"kind": "time", "test": 0.2, "valid": 0.1}, windows="one", cold_items=0.1, seed=0)
    assert found.pairs is found.rows is found.split.train


def test_judged_users_are_drawn_by_their_ids_alone() -> None:
    log = Log(pl.DataFrame({"user_id": [f"u{n % 50}" for n in range(200)], "row": range(200)}))
    some, rest = drawn_users(log, users=20)
    assert len(some.users) == 20
    assert sorted(some.users + rest.users) == log.users
    assert len(some) + len(rest) == len(log)
    smaller = Log(log.frame.filter(pl.col("user_id") != some.users[0]))
    assert set(some.users[1:]) < set(drawn_users(smaller, users=20)[0].users)
    assert drawn_users(log, users=99)[0].frame.equals(log.frame)


def test_judged_users_keep_the_rows_that_they_have_when_all_are_judged(world: Path, tmp_path: Path) -> None:
    def rows(**more: str) -> dict[str, pl.DataFrame]:
        seed = seed_of(config_of(world, **{"compare.cold_items": "0.1", **more}), tmp_path)
        return {
            kind: pl.DataFrame(
                {"user": np.array(part.user_ids)[part.users], "item": part.items, "label": part.labels}
            )
            for kind, part in {**seed.judged.test, "valid": seed.judged.valid}.items()
        }

    everyone, some = rows(), rows(**{"compare.judged_users": "7"})
    for kind, part in some.items():
        assert part["user"].n_unique() == 7
        own = everyone[kind].filter(pl.col("user").is_in(part["user"].unique().to_list()))
        assert own.equals(part)


# ---- placebo ------------------------------------------------------------------------------------


def test_the_placebo_deals_codes_out_anew_within_groups() -> None:
    random = np.random.default_rng(0)
    ids = [f"i{n:03d}" for n in range(200)]
    codes = Codes(ids, random.integers(0, 9, (200, 2)).astype(np.int32), random.integers(0, 9, (200, 3)))
    groups = random.integers(0, 4, 200)
    found = permuted(codes, groups, seed=1)
    assert (found.rq != codes.rq).any(axis=1).mean() > 0.5
    assert found.vq is not None
    assert codes.vq is not None
    for group in range(4):
        rows = [
            sorted(map(tuple, np.concatenate([c.rq, c.vq], axis=1)[groups == group].tolist()))
            for c in (codes, found)
        ]
        assert rows[0] == rows[1]


def test_event_groups_by_hand() -> None:
    rows = [(f"u{n}", item, n, 1, n) for n, item in enumerate("aabbbccccdddddeeeeeeffffffff")]
    schema = ["user_id", "item_id", "time", "label", "row"]
    log = Log(pl.DataFrame(rows, schema=schema, orient="row"))
    assert event_groups("abcdefz", log).tolist() == [1, 2, 3, 4, 5, 6, 0]


# ---- intervals ----------------------------------------------------------------------------------


def each(users: list[int], values: list[float], rows: list[int]) -> UserAuc:
    return UserAuc(np.array(users), np.array(values), np.array(rows))


def test_means_and_differences_by_hand() -> None:
    figures = {
        "a": [each([0, 1], [1.0, 0.5], [10, 30]), each([1, 2], [0.5, 0.9], [10, 10])],
        "b": [each([0, 1], [0.5, 0.5], [10, 30]), each([1, 2], [0.5, 0.5], [10, 10])],
    }
    plain, weighted = Judge(figures, weighted=False), Judge(figures, weighted=True)
    assert plain.mean("a") == pytest.approx((0.75 + 0.7) / 2)
    assert weighted.mean("a") == pytest.approx((25 / 40 + 0.7) / 2)
    assert plain.spread("a") == pytest.approx(0.05 / np.sqrt(2), rel=1e-6)
    found = plain.difference("a", "b")
    assert found.mean == pytest.approx((0.25 + 0.2) / 2)
    assert found.low <= found.mean <= found.high
    assert plain.difference("a", "a").mean == 0
    assert plain.difference("a", "a").p == 1
    half = plain.recovered("a", "b", "a")
    assert (half.mean, half.low, half.high) == (1, 1, 1)


def test_intervals_hold_what_they_should() -> None:
    """Of a mean of normal figures: 1.96 standard errors each way."""
    random = np.random.default_rng(0)
    gains = random.normal(0.02, 0.1, 800)
    base = random.uniform(0.3, 0.7, 800)
    ones = np.ones(800, dtype=int)
    judge = Judge(
        {"a": [UserAuc(np.arange(800), base + gains, ones)], "b": [UserAuc(np.arange(800), base, ones)]},
        weighted=True,
    )
    found = judge.difference("a", "b")
    error = gains.std(ddof=1) / np.sqrt(800)
    assert found.mean == pytest.approx(gains.mean())
    assert found.error == pytest.approx(error, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p == pytest.approx(2 * norm.sf(found.mean / found.error))
    assert found.smallest_effect == pytest.approx(2.8 * error, rel=0.1)


def test_holm_by_hand() -> None:
    # .01 <= .05 / 4, .013 <= .05 / 3, .03 > .05 / 2: the third and all after it stand for nothing
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.013})
    assert found == {"a": True, "b": True, "c": False, "d": False}


# ---- the whole ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    compare_variants(config_of(world), out, told=lambda line: None)
    return out


def test_every_variant_and_anchor_has_its_figures(finished: Path) -> None:
    results = read_json(finished / "compare" / "results.json")
    methods = {entry["method"] for entry in results["means"]}
    assert methods == {*DEFAULT, "popularity", "item-kNN", "content-kNN"}
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
    results = read_json(finished / "compare" / "results.json")
    assert comparison_page(results, name=finished.name) == page


def test_every_json_file_has_the_shape_that_its_schema_says(finished: Path) -> None:
    checked = set()
    for path in finished.rglob("compare/**/*.json"):
        schema = schema_of(path.relative_to(finished).as_posix())
        assert schema is not None, path
        schema.model_validate_json(path.read_text())
        checked.add(schema.__name__)
    assert checked == {"ComparedKey", "ComparedTiming", "Compared", "ComparedCell", "Searched"}


def test_the_wide_id_has_as_many_parameters_as_the_largest(finished: Path) -> None:
    cells = finished / "compare" / "seed-0" / "cells"
    sizes = {name: read_json(cells / f"{name}.json")["parameters"] for name in DEFAULT}
    wide = sizes.pop("id-wide")
    assert wide >= max(sizes.values())
    assert wide < 1.5 * max(sizes.values())


def test_finished_cells_are_kept(world: Path, finished: Path) -> None:
    results = finished / "compare" / "results.json"
    before, told = results.read_bytes(), []
    gone = finished / "compare" / "seed-1" / "scores" / "id-catalogue.npy"
    scores = gone.read_bytes()
    gone.unlink()
    compare_variants(config_of(world), finished, told=told.append)
    assert len(told) == 1
    assert "seed 1  id " in told[0]
    assert gone.read_bytes() == scores
    assert results.read_bytes() == before


def test_the_command_prints_what_matters(
    world: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for key, value in TINY.items() for part in (f"--{key}", value)]
    file = finished / "config.yaml"
    file.write_text(f"data: {{root: {world}}}\n")
    main(["compare", str(file), "--out", str(finished), *flags])
    told = capsys.readouterr().out
    assert told.startswith("Primary: id+rq+vq minus id")
    assert "| content-kNN |" in told
    assert str(finished / "compare" / "results.md") in told


def test_another_comparison_does_not_go_on_from_it(world: Path, finished: Path) -> None:
    with pytest.raises(InputError, match="other data or settings"):
        compare_variants(config_of(world, **{"ranker.dim": "8"}), finished)


def learned(root: Path, out: Path) -> dict[str, bytes]:
    """All that is learned, or learned from, by name: pairs, codebooks, codes, training rows, losses."""
    flags = {"compare.variants": "[id, id+rq+vq]", "compare.cold_items": "0"}
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
    seed.run(lambda line: None)
    for variant in config.compare.variants:
        found[f"loss of {variant}"] = str(
            read_json(out / "cells" / f"{variant}.json")["epochs"][0]["loss"]
        ).encode()
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
    """Items of the last fifth are dealt out anew: pairs, codebooks, codes, training rows keep every byte."""
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


# ---- settings -----------------------------------------------------------------------------------


def test_halving_keeps_the_best_third_and_counts_what_it_trained() -> None:
    settings = RankerConfig(epochs=20)
    asked: list[tuple[float, float, int]] = []

    def trial(tried: RankerConfig) -> list[tuple[float, int]]:
        asked.append((tried.lr, tried.dropout, tried.epochs))
        return [(1 - tried.lr - tried.dropout, tried.epochs), (1 - tried.lr, 1)]

    chosen, found = halved(settings, 9, trial, seed=0)
    tried = sampled(settings, 9, seed=0)
    best = min(tried, key=lambda setting: 2 * setting["lr"] + setting["dropout"])
    assert [len(lines) for lines in found["rounds"]] == [9, 3]
    assert {epochs for *_, epochs in asked[:9]} == {2}
    assert {epochs for *_, epochs in asked[9:]} == {20}
    assert found["variant_epochs"] == 9 * (2 + 1) + 3 * (20 + 1)
    assert (chosen.lr, chosen.dropout, chosen.epochs) == (best["lr"], best["dropout"], 20)


def test_the_given_settings_are_tried_first_and_none_twice() -> None:
    found = sampled(RankerConfig(lr=0.7), 1000, seed=3)
    assert found[0]["lr"] == 0.7
    assert len({tuple(setting.values()) for setting in found}) == len(found) == 1 + 3 * 3 * 3 * 3 * 2


# ---- answers ------------------------------------------------------------------------------------


def test_questions_are_answered_by_the_interval() -> None:
    def gain(method: str, against: str, low: float, high: float, part: str = "all") -> dict[str, object]:
        place = {"negatives": "uniform", "slice": part, "measure": "gauc"}
        return {**place, "method": method, "against": against, "low": low, "high": high}

    main = "id+rq+vq"
    differences = [
        gain(main, "id", 0.01, 0.02),
        gain(main, f"{main}@placebo", -0.01, 0.02),
        gain("rq+vq", "id", -0.02, -0.01),
        gain(main, "id", 0.1, 0.2, "cold"),
        gain(main, "id", -0.2, -0.1, "L1"),
    ]
    found = answers({"means": [{"negatives": "uniform"}], "differences": differences})
    assert [(a.compared, a.word) for a in found] == [
        (f"{main} minus {main}@placebo", "unclear"),
        (f"{main} minus id", "yes"),
        (f"{main} minus id, cold items", "yes"),
        ("rq+vq minus id", "no"),
    ]


def test_other_seeds_of_one_comparison_are_no_other_comparison(
    world: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    told: list[str] = []
    found = compare_variants(config_of(world, **{"compare.seeds": "[1]"}), tmp_path / "run", told=told.append)
    assert found["seeds"] == [1]
    assert told == []
