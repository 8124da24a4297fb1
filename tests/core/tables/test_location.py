"""Places of tables on this machine and in an S3 store, which is a server of the test's own."""

import io
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qarm.config import load_config
from qarm.core.tables import address, files_hash, is_table, media_folder, read_table
from qarm.core.tables.location import located_parts
from qarm.data.catalog import read_catalog
from qarm.data.interactions import read_log
from qarm.data.run_inputs import Run
from qarm.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the store's server, on import


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Store:
    """Files of a bucket of the S3 server."""

    def __init__(self, client: Any) -> None:
        self.client = client
        client.create_bucket(Bucket="shop")

    def put(self, key: str, content: pl.DataFrame | bytes) -> None:
        if isinstance(content, pl.DataFrame):
            stream = io.BytesIO()
            writers = {"csv": content.write_csv, "jsonl": content.write_ndjson, "arrow": content.write_ipc}
            writers.get(key.rpartition(".")[2], content.write_parquet)(stream)
            content = stream.getvalue()
        self.client.put_object(Bucket="shop", Key=key, Body=content)


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    yield Store(client)
    for found in client.list_objects_v2(Bucket="shop").get("Contents", []):
        client.delete_object(Bucket="shop", Key=found["Key"])


def ids(*values: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": values, "title": [f"item {value}" for value in values]})


def test_an_address_keeps_its_slashes_also_as_a_path() -> None:
    for place in ("s3://shop/a/b.csv", Path("s3://shop/a/b.csv"), Path("s3://shop") / "a" / "b.csv"):
        assert address(place) == "s3://shop/a/b.csv"
    assert address("hf://datasets/a/b") == "hf://datasets/a/b"
    assert [address(place) for place in ("a/b.csv", Path("s3/x"), "https://x/y.csv")] == [None] * 3
    assert media_folder("s3://shop/a.csv") is None
    config = load_config(flags={"data.root": "s3://shop/v1"}, environment={})
    assert address(config.items_path) == "s3://shop/v1/items.parquet"


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow"])
def test_a_file_of_a_store(store: Store, ending: str) -> None:
    store.put(f"t[1]/x.{ending}", ids("007", "8"))
    store.put(f"t1/x.{ending}", ids("wrong"))
    assert read_table(f"s3://shop/t[1]/x.{ending}", ["item_id"]).frame["item_id"].to_list() == ["007", "8"]
    assert read_table("s3://shop/t[1]", ["item_id"]).frame["item_id"].to_list() == ["007", "8"]


def test_a_folder_and_a_pattern_of_a_store(store: Store) -> None:
    for number in (2, 1):
        store.put(f"clicks.parquet/day=2024-01-0{number}/p.parquet", ids(str(number)))
    store.put("clicks.parquet/_SUCCESS", b"")
    store.put("clicks.parquet/_tmp/p.parquet", ids("left"))
    for place in (
        "s3://shop/clicks.parquet",
        "s3://shop/clicks.parquet/",
        "s3://shop/clicks.parquet/*/p.parquet",
    ):
        rows = read_table(place, ["item_id", "day"]).frame.rows()
        assert [row for row in rows if row[1]] == [("1", "2024-01-01"), ("2", "2024-01-02")]
    assert len(located_parts("s3://shop/clicks.parquet")) == 2
    assert is_table("s3://shop/clicks.parquet")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://shop/none", r"s3://shop/none: no table there \(0 other files\)"),
        ("s3://shop/none.csv", "none.csv: not readable as csv: .*not found"),
        ("s3://shop/only", r"no table there \(1 other files\)"),
        ("s3://nowhere/x/*.csv", "not readable .*; check the address and the credentials"),
    ],
)
def test_what_a_store_does_not_have(store: Store, place: str, message: str) -> None:
    store.put("only/read.me", b"x")
    with pytest.raises(InputError, match=message):
        read_table(place)


def test_a_shop_in_a_store(store: Store, tmp_path: Path) -> None:
    """Hive partitions, decimals and time zones; a changed row makes the stages stale that read it."""
    store.put("v1/items/shop=7/a.parquet", ids("007", "008").with_columns(price=pl.lit(Decimal("1.10"))))
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2024, 1, 1, 5, 30, tzinfo=zone)
    clicks = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["007", "008"], "timestamp": [moment, moment]})
    store.put("v1/clicks/day=1/a.parquet", clicks)

    flags = {
        "data.root": "s3://shop/v1",
        "data.items": "{path: items, text: [title, price, shop], image: null, audio: null}",
        "data.interactions.path": "clicks",
    }

    def run() -> Run:
        return Run(load_config(flags=flags, environment={}), tmp_path)

    catalog, log = run().tables
    assert catalog.sample() == {"007": "item 007\n1.10\n7", "008": "item 008\n1.10\n7"}
    assert log.period == ("2024-01-01T00:00:00", "2024-01-01T00:00:00")
    before = [run().hash_of(name) for name in ("items", "interactions")]
    assert [run().hash_of(name) for name in ("items", "interactions")] == before
    store.put("v1/items/shop=7/a.parquet", ids("007", "9").with_columns(price=pl.lit(Decimal("1.10"))))
    store.put("v1/clicks/day=1/a.parquet", clicks.with_columns(item_id=pl.lit("007")))
    after = [run().hash_of(name) for name in ("items", "interactions")]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_media_paths_need_a_folder(store: Store, tmp_path: Path) -> None:
    store.put("items.parquet", ids("a").with_columns(photo=pl.lit("a.png")))
    with pytest.raises(InputError, match="image holds paths, and a remote table has no folder of media"):
        read_catalog("s3://shop/items.parquet", text=["title"], image="photo", audio=None)
    kept = read_catalog("s3://shop/items.parquet", text=["title"], image="photo", audio=None, folder=tmp_path)
    assert kept.path("a.png") == tmp_path / "a.png"


def test_the_hash_of_a_folder_holds_names_and_contents(tmp_path: Path) -> None:
    def hashed(**files: bytes) -> str | None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / f"{name}.csv").write_bytes(content)
        (folder / "_SUCCESS").write_bytes(str(len(files)).encode())
        return files_hash(folder)

    one = hashed(a=b"x\n1\n", b=b"x\n2\n")
    assert one == hashed(a=b"x\n1\n", b=b"x\n2\n")
    others = [hashed(a=b"x\n1\n"), hashed(a=b"x\n1\n", c=b"x\n2\n"), hashed(a=b"x\n1\n", b=b"x\n3\n")]
    assert len({one, *others}) == 4


def test_events_of_part_files_keep_their_rows(tmp_path: Path) -> None:
    for number in (1, 2):
        text = f"user_id,item_id,timestamp\nu,00{number},{number}\nv,x,5\n"
        (tmp_path / f"clicks-{number}.csv").write_text(text)
    log = read_log(tmp_path / "clicks-*.csv")
    assert log.frame.select("user_id", "item_id", "row").rows() == [
        ("u", "001", 0),
        ("u", "002", 2),
        ("v", "x", 1),
        ("v", "x", 3),
    ]
