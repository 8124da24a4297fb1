"""A bundle: the run's answers, the same codes as `qarm encode`, and nothing that could have been changed."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.cli import main
from qarm.core.sealed_folder import building, opened_seal, seal
from qarm.data.catalog import read_catalog
from qarm.data.codes import Codes
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.versions.lifecycle import append_items
from qarm.recommender.code_embedding import CodeEmbedding
from qarm.recommender.ranking.model import Ranker
from qarm.schemas.bundle import BundleContent, Sealed
from qarm.serving.bundle import Bundle, export_bundle


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def rows_of(world: Path, table: str = "new.parquet") -> list[dict[str, Any]]:
    """The table's items as a request would bring them."""
    rows = pl.read_parquet(world / table).to_dicts()
    for row in rows:
        for kind in ("image", "audio"):
            path = row.pop(f"{kind}_path")
            row[kind] = None if path is None else (world / path).read_bytes()
    return rows


# ---- the same answers -------------------------------------------------------------------------------


def test_new_items_get_the_bytes_that_qarm_encode_writes(
    bundle: Bundle, run: Path, world: Path, tmp_path: Path
) -> None:
    main(["encode", str(world / "new.parquet"), "--run", str(run), "--out", str(tmp_path / "codes.parquet")])
    vectors, codes = bundle.code(bundle.catalog_of(rows_of(world)))
    codes.write(tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_bytes() == (tmp_path / "codes.parquet").read_bytes()
    one_vector, one = bundle.code(bundle.catalog_of(rows_of(world)[3:4]))
    assert one.rq.tolist() == codes.rq[3:4].tolist()
    assert one.vq is not None
    assert codes.vq is not None
    assert one.vq.tolist() == codes.vq[3:4].tolist()
    assert one_vector.vectors.tobytes() == vectors.vectors[3:4].tobytes()


def test_a_catalogue_of_values_is_the_catalogue_of_the_table(bundle: Bundle, world: Path) -> None:
    table = read_catalog(world / "new.parquet")
    made = bundle.catalog_of(rows_of(world))
    assert made.frame.select("item_id", "text").equals(table.frame.select("item_id", "text"))
    assert made.counts() == table.counts()
    assert bundle.catalog_of([{"item_id": "a", "title": " x ", "description": None}]).frame["text"][0] == "x"


def test_vectors_and_codes_are_those_of_the_run(bundle: Bundle, run: Path) -> None:
    codes = Codes.read(run / "codes" / "codes.parquet")
    assert bundle.item_ids == codes.item_ids == bundle.vectors.item_ids
    assert np.array_equal(bundle.codes.rq, codes.rq)
    vectors = pl.read_parquet(run / "embeddings" / "embeddings.parquet")
    expected = dict(zip(vectors["item_id"], vectors["embedding"].to_numpy(), strict=True))
    assert all(np.array_equal(bundle.vectors.vectors[i], expected[x]) for i, x in enumerate(bundle.item_ids))
    assert bundle.config.quantizer.width == 4
    again = CodeEmbedding.from_run(bundle.folder, dim=4)
    assert (
        again.lookup(codes.item_ids).tolist() == CodeEmbedding.from_run(run).lookup(codes.item_ids).tolist()
    )


def test_nearest_is_exact(bundle: Bundle) -> None:
    asked = bundle.vectors.vectors[:5] * np.float32(3.0)
    ids, cosines = bundle.nearest(asked, 4)
    exact = bundle.vectors.vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for row in range(5):
        scores = exact @ exact[row]
        best = np.argsort(-scores, kind="stable")[:4]
        assert ids[row] == [bundle.item_ids[i] for i in best]
        assert cosines[row] == pytest.approx(scores[best], abs=1e-6)
        assert ids[row][0] == bundle.item_ids[row]
    assert [len(line) for line in bundle.nearest(asked, 1000)[0]] == [39] * 5
    for wrong in (np.zeros((1, 16)), np.full((1, 16), np.nan), np.ones((1, 3))):
        with pytest.raises(InputError):
            bundle.nearest(wrong.astype(np.float32), 3)


def test_neighbours_before_alignment(bundle: Bundle, run: Path) -> None:
    raw = pl.read_parquet(run / "embeddings" / "raw.parquet")
    exact = raw["embedding"].to_numpy().astype(np.float64)
    scores = exact @ exact.T
    np.fill_diagonal(scores, -np.inf)
    for row, item in enumerate(raw["item_id"]):
        best = np.argsort(-scores[row], kind="stable")[:10]
        assert bundle.nearest_raw(item) == [raw["item_id"][int(i)] for i in best]


def test_under_lists_the_items_of_a_prefix(bundle: Bundle) -> None:
    everything = [
        (tuple(code), item) for code, item in zip(bundle.codes.rq.tolist(), bundle.item_ids, strict=True)
    ]
    everything.sort()
    assert bundle.under(()) == [item for _, item in everything]
    for length in (1, 2, 3):
        for prefix in {code[:length] for code, _ in everything}:
            assert bundle.under(prefix) == [item for code, item in everything if code[:length] == prefix]
    assert bundle.under((99,)) == bundle.under((-1,)) == bundle.under((2**40,)) == []
    with pytest.raises(InputError, match="at most 3 levels"):
        bundle.under((0, 0, 0, 0))


def test_scores_are_the_rankers(bundle: Bundle, run: Path) -> None:
    assert bundle.variant == "id+rq+vq"
    ranker = Ranker.from_pretrained(run / "recommender" / "id+rq+vq")
    asked = [bundle.item_ids[:5], bundle.item_ids[4:6]], [bundle.item_ids[9:12], []]
    found, expected = bundle.score(*asked), ranker.score(*asked)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    with pytest.raises(InputError, match="have no codes"):
        bundle.score([["nobody"]], [[]])


def test_facts_and_media(bundle: Bundle, world: Path) -> None:
    table = pl.read_parquet(world / "items.parquet")
    for row in table.to_dicts():
        facts = bundle.facts(row["item_id"])
        assert [facts[name] for name in ("title", "description")] == [row["title"], row["description"]]
        for kind in ("image", "audio"):
            name = facts[kind]
            assert (name is None) == (row[f"{kind}_path"] is None)
            if name is not None:
                content = (bundle.folder / name).read_bytes()
                assert content == (world / row[f"{kind}_path"]).read_bytes()
                assert Path(name).stem == hashlib.sha256(content).hexdigest()
    assert {path.suffix for path in (bundle.folder / "media").iterdir()} == {".png", ".wav"}
    with pytest.raises(InputError, match="'nobody'"):
        bundle.facts("nobody")


# ---- what comes from a request ----------------------------------------------------------------------


def test_values_that_are_no_items_are_refused_all_at_once(bundle: Bundle) -> None:
    wrong: list[dict[str, Any]] = [
        {"item_id": "a", "title": 3},
        {"item_id": "b", "title": "b", "image": "../../secret.png"},
        {"item_id": "c", "title": "c", "image_path": "media/x.png"},
        {"item_id": "d", "title": "\ud800"},
    ]
    with pytest.raises(InputError) as error:
        bundle.catalog_of(wrong)
    assert len(error.value.problems) == 4
    assert "image is str, need bytes" in error.value.problems[1]
    assert "unknown fields image_path" in error.value.problems[2]
    for rows, message in (
        ([], "no items"),
        ([{"title": "x"}], "null or empty ids"),
        ([{"item_id": "", "title": "x"}], "null or empty ids"),
        ([{"item_id": "a"}], "have no text, picture or sound"),
        ([{"item_id": "a", "title": "x"}] * 2, "duplicate"),
    ):
        with pytest.raises(InputError, match=message):
            bundle.catalog_of(rows)


def test_a_damaged_picture_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="item 'a': image file in the table: not a picture"):
        bundle.code(bundle.catalog_of([{"item_id": "a", "title": "x", "image": b"no picture"}]))


# ---- whole or not there -----------------------------------------------------------------------------


def test_every_file_has_its_hash_and_none_is_a_pickle(exported: Path) -> None:
    manifest = Sealed.model_validate_json((exported / "manifest.json").read_text())
    BundleContent.model_validate_json((exported / "bundle.json").read_text())
    files = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert set(manifest.files) == files - {"manifest.json"}
    for name, expected in manifest.files.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == expected
    endings = {Path(name).suffix for name in files if not name.startswith("media/")}
    assert endings == {".json", ".md", ".parquet", ".safetensors"}
    assert not any((exported / name).read_bytes().startswith(b"\x80") for name in files)


def test_the_same_run_gives_the_same_version_and_nothing_is_replaced(
    exported: Path, run: Path, world: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    made = export_bundle(run, exported, items=(world / "items.parquet",), media=True)
    assert made.version == json.loads((exported / "manifest.json").read_text())["version"]
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before
    with pytest.raises(InputError, match="never replaced"):
        export_bundle(run, exported, items=(world / "items.parquet",))
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="nothing that qarm exported"):
        export_bundle(run, tmp_path / "mine", items=(world / "items.parquet",))
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_any_change_is_named(copy: Path) -> None:
    kept = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    names = ("codes/codes.parquet", "recommender/id+rq+vq/model.safetensors", "bundle.json", "items.parquet")
    for name in names:
        path = copy / name
        path.write_bytes(kept[path][:-1] + bytes([kept[path][-1] ^ 1]))
        with pytest.raises(ArtifactError, match=f"changed: {name}".replace("+", r"\+")):
            Bundle.load(copy)
        path.unlink()
        with pytest.raises(ArtifactError, match=f"missing: {name}".replace("+", r"\+")):
            Bundle.load(copy)
        path.write_bytes(kept[path])
    (copy / "codes" / "more.bin").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"not part of it: codes/more\.bin"):
        Bundle.load(copy)
    (copy / "codes" / "more.bin").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["items.parquet"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed"):
        Bundle.load(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Bundle.load(copy)


def test_a_killed_export_leaves_no_bundle_and_the_next_one_works(
    run: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies just before the rename; what an earlier version left is nobody's to delete."""
    table, out = (world / "items.parquet",), tmp_path / "bundle"
    partial = tmp_path / ".bundle.partial"
    with monkeypatch.context() as patch:
        patch.setattr("qarm.serving.export.bundle_writer.seal", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_bundle(run, out, items=table)
    assert list(tmp_path.iterdir()) == []
    partial.mkdir()
    (partial / "half").write_text("x")
    export_bundle(run, out, items=table)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.partial", "bundle"]
    assert (partial / "half").read_text() == "x"
    assert Bundle.load(out).facts(Bundle.load(out).item_ids[0])["image"] is None


def test_two_processes_do_not_build_one_folder(tmp_path: Path) -> None:
    with building(tmp_path / "out") as work:
        (work / "a").write_text("x")
        with pytest.raises(ArtifactError, match="another qarm process"), building(tmp_path / "out"):
            pass
        assert (work / "a").read_text() == "x"
        seal(work, kind="qarm-bundle-1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "manifest.json"]
    assert opened_seal(tmp_path / "out", kind="qarm-bundle-1")


# ---- what belongs together --------------------------------------------------------------------------


def test_appended_items_are_in_it(run: Path, world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    append_items(copy, world / "new.parquet")
    tables = (world / "new.parquet", world / "items.parquet")
    export_bundle(copy, tmp_path / "bundle", items=tables)
    bundle = Bundle.load(tmp_path / "bundle")
    new = pl.read_parquet(world / "new.parquet")
    assert bundle.item_ids[40:] == new["item_id"].to_list()
    assert [bundle.facts(item)["title"] for item in new["item_id"]] == new["title"].to_list()
    vectors, codes = bundle.code(bundle.catalog_of(rows_of(world)))
    assert np.array_equal(bundle.vectors.vectors[40:], vectors.vectors)
    assert np.array_equal(bundle.codes.rq[40:], codes.rq)
    assert bundle.nearest_raw(new["item_id"][0]) == []
    assert len(bundle.score([bundle.item_ids[:3]], [[]])[0]) == 3


def test_a_ranker_of_other_codes_is_refused(refitted: Path, world: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="recommender.* was trained on other codes"):
        export_bundle(refitted, tmp_path / "bundle", items=(world / "items.parquet",))
    with pytest.raises(ArtifactError, match="the retriever was trained on other codes than these; run qarm"):
        export_bundle(refitted, tmp_path / "bundle", items=(world / "items.parquet",), variant="id")
    shutil.copytree(refitted, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "retriever")
    made = export_bundle(
        tmp_path / "run", tmp_path / "bundle", items=(world / "items.parquet",), variant="id"
    )
    assert made.variant == "id"


def test_faults_name_the_way_out(run: Path, world: Path, tmp_path: Path) -> None:
    table, out = (world / "items.parquet",), tmp_path / "bundle"
    for keywords, message in (
        ({"items": table, "variant": "id+vq"}, "rankers are id, id\\+rq\\+vq"),
        ({"items": (world / "new.parquet",)}, "not the table that the run read"),
        ({"items": (world / "none.parquet",)}, "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            export_bundle(run, out, **keywords)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such folder"):
        export_bundle(tmp_path / "none", out)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "codes" / "quality.json").write_text("{}")
    with pytest.raises(ArtifactError, match="changed since"):
        export_bundle(copy, out, items=table)
    shutil.rmtree(copy / "codes")
    with pytest.raises(ArtifactError, match="no finished codes"):
        export_bundle(copy, out, items=table)
    assert not out.exists()


def test_the_runs_table_is_found_from_any_folder(
    run: Path, world: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads((run / "tables.json").read_text())["items"] == str(world / "items.parquet")
    made = export_bundle(run, tmp_path / "bundle", media=True)
    assert made.version == opened_seal(exported, kind="qarm-bundle-1")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "tables.json").unlink()  # a run of an earlier version
    with pytest.raises(InputError, match="items.parquet, is not where it was; give it with --items"):
        export_bundle(copy, tmp_path / "other")
    main(
        [
            "export",
            str(copy),
            "--items",
            str(world / "new.parquet"),
            str(world / "items.parquet"),
            "--out",
            "b",
        ]
    )
    assert pl.read_parquet("b/items.parquet")["title"].null_count() == 0


def test_without_a_ranker_all_but_scores(run: Path, world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "recommender")
    export_bundle(copy, tmp_path / "bundle", items=(world / "items.parquet",))
    bundle = Bundle.load(tmp_path / "bundle").warm()
    assert (bundle.variant, bundle.scorer) == (None, None)
    with pytest.raises(InputError, match="has no ranker"):
        bundle.score([["a"]], [[]])


def test_the_command(run: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["export", str(run), "--out", str(tmp_path / "b"), "--items", str(world / "items.parquet")]
    main([*call, "--json"])
    made = json.loads(capsys.readouterr().out)
    assert (made["items"], made["variant"], made["path"]) == (40, "id+rq+vq", str(tmp_path / "b"))
    main(call)
    assert capsys.readouterr().out.startswith("export    ")
