"""Codes for other systems: all formats say the same, increments lead there, PyTorch finds the same rows."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from qarm.cli import main
from qarm.data.codes import Codes
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.versions.lifecycle import append_items
from qarm.recommender.code_embedding import CodeEmbedding
from qarm.schemas.bundle import CodeLayout, Sealed
from qarm.serving.export.code_tables import changed_codes, changed_items, code_items, item_codes, prefix_ids
from qarm.serving.export.codes import export_codes
from qarm.serving.export.redis import command, commands

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def table(codes: dict[str, tuple[int, int]], *, version: int = 1) -> pl.DataFrame:
    """Items of codes with widths 4 and 3; the VQ list is the sum of both."""
    rq = np.array(list(codes.values()), dtype=np.int32).reshape(-1, 2)
    vq = rq.sum(axis=1, keepdims=True, dtype=np.int32)
    return item_codes(Codes(list(codes), rq, vq, version), [4, 3], valid_from=[NOON] * len(codes))


def parsed(content: bytes) -> Iterator[list[str]]:
    """The commands of a RESP stream; a wrong length leaves it out of step, which asserts notice."""
    rest = memoryview(content)

    def line() -> bytes:
        nonlocal rest
        end = bytes(rest[:64]).index(b"\r\n")
        found, rest = bytes(rest[:end]), rest[end + 2 :]
        return found

    while rest:
        head = line()
        assert head[:1] == b"*"
        parts = []
        for _ in range(int(head[1:])):
            size = line()
            assert size[:1] == b"$"
            length = int(size[1:])
            parts.append(bytes(rest[:length]).decode())
            assert bytes(rest[length : length + 2]) == b"\r\n"
            rest = rest[length + 2 :]
        yield parts


def database(*contents: bytes) -> dict[str, Any]:
    """What a Redis server would hold after these commands."""
    held: dict[str, Any] = {}
    for name, key, *rest in (parts for content in contents for parts in parsed(content)):
        if name == "DEL":
            held.pop(key, None)
        elif name == "HSET":
            held.setdefault(key, {}).update(zip(rest[::2], rest[1::2], strict=True))
        elif name == "SADD":
            held.setdefault(key, set()).update(rest)
        else:
            assert name == "SET"
            held[key] = rest[0]
    return held


# ---- by hand ----------------------------------------------------------------------------------------


def test_ids_and_prefixes_by_hand() -> None:
    found = table({"a": (0, 0), "b": (3, 2), "c": (1, 2)})
    assert found["ids"].to_list() == [[0, 4], [3, 6], [1, 6]]
    assert found["prefixes"].to_list() == [[0, 0], [3, 3 * 3 + 2], [1, 1 * 3 + 2]]
    assert found["valid_from"].to_list() == [NOON] * 3
    assert dict(found.schema) == {
        "item_id": pl.String,
        "version": pl.Int32,
        "valid_from": pl.Datetime("us", "UTC"),
        "rq": pl.Array(pl.Int32, 2),
        "vq": pl.Array(pl.Int32, 1),
        "ids": pl.Array(pl.Int64, 2),
        "prefixes": pl.Array(pl.Int64, 2),
        "removed": pl.Boolean,
    }
    lists = code_items(found)
    assert dict(lists.select("code_id", "item_ids").iter_rows()) == {
        0: ["a"],
        1: ["c"],
        3: ["b"],
        4: ["a"],
        6: ["b", "c"],
    }
    assert lists["level"].to_list() == [1, 1, 1, 2, 2]


def test_prefix_ids_tell_all_prefixes_apart() -> None:
    codes = np.array([(a, b, c) for a in range(3) for b in range(5) for c in range(2)], dtype=np.int32)
    found = prefix_ids(codes, [3, 5, 2])
    assert found[:, 2].tolist() == list(range(30))
    assert found[:, 1].tolist() == [row // 2 for row in range(30)]
    top = np.full((1, 4), 2**15 - 1, dtype=np.int32)
    assert prefix_ids(top, [2**15] * 4)[0, 3] == 2**60 - 1
    with pytest.raises(InputError, match="levels 1 to 5 .* need at most"):
        prefix_ids(np.zeros((1, 5), dtype=np.int32), [2**15] * 5)


def test_changes_by_hand() -> None:
    before = table({"a": (0, 0), "b": (3, 2), "c": (1, 2), "d": (2, 2)})
    now = table({"e": (1, 1), "c": (1, 2), "b": (3, 1), "a": (0, 0)}, version=2)
    found = changed_items(before, now, same_pool=True)
    assert found.select("item_id", "removed").rows() == [("e", False), ("b", False), ("d", True)]
    assert found["version"].to_list() == [2, 2, 2]
    assert found["rq"].to_list() == [[1, 1], [3, 1], None]
    lists = changed_codes(code_items(before), code_items(now))
    assert dict(lists.select("code_id", "item_ids").iter_rows()) == {
        1: ["e", "c"],
        2: [],
        5: ["e", "b"],
        6: ["c"],
    }
    everything = changed_items(before, now, same_pool=False)
    assert everything["item_id"].to_list() == ["e", "c", "b", "a", "d"]
    nothing = changed_items(now, now, same_pool=True)
    assert (nothing.height, nothing.schema) == (0, now.schema)
    assert changed_codes(code_items(now), code_items(now)).height == 0


def test_commands_count_bytes() -> None:
    assert command("SET", "é", 12) == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$2\r\n12\r\n"
    odd = "naïve\r\n$9 日本 🎧"
    items = table({odd: (0, 1), "b": (3, 1)})
    found = database(b"".join(commands(items, code_items(items), version=1)))
    assert found[f"qarm:item:{odd}"]["ids"] == "0,5"
    assert found["qarm:code:5"] == {odd, "b"}
    assert found["qarm:version"] == "1"


def test_many_items_of_one_code_take_several_commands() -> None:
    items = table({f"i{row}": (0, 0) for row in range(2500)})
    made = list(parsed(b"".join(commands(items, code_items(items), version=1))))
    assert [len(parts) - 2 for parts in made if parts[:2] == ["SADD", "qarm:code:4"]] == [1000, 1000, 500]


# ---- from a run -------------------------------------------------------------------------------------


def test_every_format_says_the_same(run: Path, tmp_path: Path) -> None:
    codes = Codes.read(run / "codes" / "codes.parquet")
    for to in ("parquet", "jsonl", "redis"):
        made = export_codes(run, tmp_path / to, to=to)  # type: ignore[arg-type]
        assert (made.items, made.version, made.removed) == (40, 1, 0)
        assert not list(tmp_path.glob(".*"))
    items = pl.read_parquet(tmp_path / "parquet" / "item_codes.parquet")
    lists = pl.read_parquet(tmp_path / "parquet" / "code_items.parquet")
    assert items["item_id"].to_list() == codes.item_ids
    assert np.array_equal(items["rq"].to_numpy(), codes.rq)
    assert np.array_equal(items["vq"].to_numpy(), codes.vq)
    timing = json.loads((run / "codes" / "timing.json").read_text())
    written = datetime.fromtimestamp(timing["started"] + timing["seconds"], UTC)
    assert items["valid_from"].unique().to_list() == [written]

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "jsonl" / name).read_text().splitlines()]

    for name, frame in (("item_codes", items), ("code_items", lists)):
        rows = read(f"{name}.jsonl")
        for row, expected in zip(rows, frame.to_dicts(), strict=True):
            assert datetime.fromisoformat(row.pop("valid_from")) == expected.pop("valid_from")
            assert row == expected
    held = database((tmp_path / "redis" / "commands.resp").read_bytes())
    assert len(held) == items.height + lists.height + 1
    for row in items.to_dicts():
        entry = held[f"qarm:item:{row['item_id']}"]
        for key in ("rq", "vq", "ids", "prefixes"):
            assert [int(value) for value in entry[key].split(",")] == row[key]
        assert entry["version"] == "1"
        assert datetime.fromisoformat(entry["valid_from"]) == row["valid_from"]
    for row in lists.to_dicts():
        assert held[f"qarm:code:{row['code_id']}"] == set(row["item_ids"])
    layout = CodeLayout.model_validate_json((tmp_path / "parquet" / "layout.json").read_text())
    assert [(level.width, level.offset) for level in layout.levels] == [(4, 0), (4, 4), (4, 8)]
    assert layout.ids == 12
    Sealed.model_validate_json((tmp_path / "parquet" / "manifest.json").read_text())


def test_an_increment_leads_from_version_1_to_version_2(refitted: Path, run: Path, tmp_path: Path) -> None:
    for to, source, since in (
        ("parquet", run, None),
        ("redis", run, None),
        ("parquet", refitted, 1),
        ("redis", refitted, 1),
        ("parquet", refitted, None),
        ("redis", refitted, None),
    ):
        export_codes(source, tmp_path / f"{to}-{source is refitted}-{since}", to=to, since=since)  # type: ignore[arg-type]

    def read(name: str, file: str) -> pl.DataFrame:
        return pl.read_parquet(tmp_path / f"parquet-{name}" / f"{file}.parquet")

    old, step, new = (read(name, "item_codes") for name in ("False-None", "True-1", "True-None"))
    assert step.height < new.height
    kept = old.filter(~pl.col("item_id").is_in(step["item_id"].implode()))
    together = pl.concat([kept, step.filter(~pl.col("removed"))])
    columns = ["item_id", "rq", "vq", "ids", "prefixes"]
    assert together.select(columns).sort("item_id").equals(new.select(columns).sort("item_id"))
    before = dict(old.select("item_id", "rq").iter_rows()) | {}
    unchanged = {item for item, rq in new.select("item_id", "rq").iter_rows() if before.get(item) == rq}
    same_lists = dict(old.select("item_id", "vq").iter_rows())
    for row in step.to_dicts():
        assert row["item_id"] not in unchanged or same_lists[row["item_id"]] != row["vq"]

    redis = [(tmp_path / f"redis-{name}" / "commands.resp").read_bytes() for name in ("False-None", "True-1")]
    stepped, direct = database(*redis), database((tmp_path / "redis-True-None/commands.resp").read_bytes())
    for held in (stepped, direct):
        for key in held:
            if key.startswith("qarm:item:"):
                del held[key]["version"], held[key]["valid_from"]
    assert stepped == direct
    assert direct["qarm:version"] == "2"


def test_since_the_current_version_are_the_appended_items(
    run: Path, refitted: Path, world: Path, tmp_path: Path
) -> None:
    assert export_codes(run, tmp_path / "none", to="parquet", since=1).items == 0
    assert export_codes(refitted, tmp_path / "after", to="parquet", since=2).items == 0
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    append_items(copy, world / "new.parquet")
    export_codes(copy, tmp_path / "some", to="parquet", since=1)
    items = pl.read_parquet(tmp_path / "some" / "item_codes.parquet")
    assert items["item_id"].to_list() == pl.read_parquet(world / "new.parquet")["item_id"].to_list()
    export_codes(run, tmp_path / "before", to="parquet")
    export_codes(copy, tmp_path / "all", to="parquet")
    first, every = (pl.read_parquet(tmp_path / name / "item_codes.parquet") for name in ("before", "all"))
    assert every.head(40)["valid_from"].equals(first["valid_from"])  # an append moves no other item's time
    assert every.tail(8)["valid_from"].min() > first["valid_from"].max()
    layout = json.loads((tmp_path / "all" / "layout.json").read_text())
    assert datetime.fromisoformat(layout["valid_from"]) == every["valid_from"].max()
    for row in pl.read_parquet(tmp_path / "all" / "code_items.parquet").to_dicts():
        members = every.filter(pl.col("item_id").is_in(row["item_ids"]))
        assert row["valid_from"] == members["valid_from"].max()
    lists = pl.read_parquet(tmp_path / "some" / "code_items.parquet")
    touched = {code for row in items["ids"].to_list() for code in row}
    assert set(lists["code_id"]) == touched


def test_faults_name_the_way_out(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for keywords, message in (
        ({"to": "xml"}, "need one of parquet, jsonl, redis"),
        ({"to": "parquet", "since": 7}, "need one of the versions 1"),
        ({"to": "parquet", "valid_from": "noon"}, "need a time such as"),
    ):
        with pytest.raises(InputError, match=message):
            export_codes(run, out, **keywords)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="no finished codes"):
        export_codes(tmp_path, out, to="parquet")
    export_codes(run, out, to="jsonl", valid_from="2026-01-31T12:00:00Z")
    with pytest.raises(InputError, match="never replaced"):
        export_codes(run, out, to="jsonl", valid_from="2026-01-31T13:00:00Z")


def test_brackets_in_a_run_s_name_are_no_pattern(run: Path, refitted: Path, tmp_path: Path) -> None:
    """`shop[1]` beside `shop1`, a run of other codes."""
    wanted = Path(shutil.copytree(run, tmp_path / "shop[1]"))
    shutil.copytree(refitted, tmp_path / "shop1")
    export_codes(wanted, tmp_path / "out[1]", to="parquet")
    codes = pl.read_parquet(tmp_path / "out[1]" / "item_codes.parquet", glob=False)
    expected = Codes.read(run / "codes" / "codes.parquet")
    assert codes["item_id"].to_list() == expected.item_ids
    assert codes["rq"].to_numpy().tolist() == expected.rq.tolist()


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["export-codes", str(run), "--to", "redis", "--out", str(tmp_path / "out"), "--json"]
    main(call)
    first = json.loads(capsys.readouterr().out)
    main(call)
    assert json.loads(capsys.readouterr().out) == first
    assert (first["items"], first["since"], first["codes"]) == (40, None, first["codes"])


# ---- in other rankers -------------------------------------------------------------------------------


@pytest.fixture
def loaded(run: Path, tmp_path: Path) -> tuple[CodeEmbedding, pl.DataFrame, torch.Tensor]:
    """The run's code embeddings, the exported table, and one weight over all levels, in their order."""
    export_codes(run, tmp_path / "codes", to="parquet")
    module = CodeEmbedding.from_run(run, dim=6)
    weights = [module.get_parameter(f"levels.{level}.weight") for level in range(3)]
    return module, pl.read_parquet(tmp_path / "codes" / "item_codes.parquet"), torch.cat(weights).detach()


def test_plain_pytorch_finds_the_rows_of_the_run(
    loaded: tuple[CodeEmbedding, pl.DataFrame, torch.Tensor],
) -> None:
    module, items, weight = loaded
    codes = module.lookup(items["item_id"].to_list())
    ids = torch.from_numpy(items["ids"].to_numpy().copy())
    expected = module.parts(codes)
    assert torch.equal(nn.Embedding.from_pretrained(weight)(ids), expected[:, :3])
    bag = nn.EmbeddingBag.from_pretrained(weight, mode="sum")
    starts = torch.arange(0, ids.numel(), ids.shape[1])
    assert torch.allclose(bag(ids.flatten(), starts), expected[:, :3].sum(1), atol=1e-6)
    assert module.nearest is not None
    pool = nn.EmbeddingBag.from_pretrained(module.nearest.weight.detach(), mode="mean")
    assert torch.equal(pool(torch.from_numpy(items["vq"].to_numpy().astype(np.int64))), expected[:, 3])


@pytest.mark.filterwarnings("ignore")  # of its libraries, on import
def test_torchrec_finds_the_rows_of_the_run(
    loaded: tuple[CodeEmbedding, pl.DataFrame, torch.Tensor],
) -> None:
    torchrec = pytest.importorskip("torchrec", exc_type=ImportError)
    module, items, weight = loaded
    ids = torch.from_numpy(items["ids"].to_numpy().copy())
    jagged = torchrec.KeyedJaggedTensor.from_lengths_sync(
        keys=["codes"], values=ids.flatten(), lengths=torch.full((len(ids),), ids.shape[1])
    )
    config = torchrec.EmbeddingBagConfig(
        name="codes", embedding_dim=6, num_embeddings=len(weight), feature_names=["codes"]
    )
    collection = torchrec.EmbeddingBagCollection(tables=[config], device=torch.device("cpu"))
    with torch.no_grad():
        collection.embedding_bags["codes"].weight.copy_(weight)
    expected = module.parts(module.lookup(items["item_id"].to_list()))[:, :3].sum(1)
    assert torch.allclose(collection(jagged)["codes"], expected, atol=1e-6)


def test_the_python_of_the_page_runs(exported: Path, run: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert len(blocks) == 2
    export_codes(run, tmp_path / "codes", to="parquet")
    names: dict[str, Any] = {}
    for block in blocks:
        placed = block.replace('"BUNDLE"', repr(str(exported))).replace("CODES/", f"{tmp_path}/codes/")
        exec(placed, names)  # noqa: S102
    assert names["codes"].rq.shape == (1, 3)
    assert names["vectors"].shape == (40, 128)
