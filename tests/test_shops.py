"""Three awkward shops, from `qarm init` to `qarm serve`, with at most one line of the config edited by hand.

Part files of CSV with padded ids and stars; JSON Lines with ISO times, lists and nested titles; hive
partitions of Parquet in an S3 store, with decimals and time zones.
"""

import io
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from tests.serving.conftest import SMALL, tiny_text_encoder

from qarm.cli import main
from qarm.config import load_config
from qarm.core.atomic_io import read_json
from qarm.data.codes import Codes
from qarm.data.run_inputs import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the store's server, on import
ITEMS, USERS, EVENTS = 32, 20, 10
COLOURS = ["red", "blue", "green", "black"]
START = datetime(2024, 1, 1, 5, 0)


@dataclass(frozen=True)
class Event:
    """A user's event: number of the item, minutes after the start, and stars from 1 to 5."""

    user: int
    item: int
    minute: int
    stars: int


def made_events() -> list[Event]:
    """Users prefer one colour; the last two items come late, so that some are cold."""
    draw = random.Random(0)  # noqa: S311 - nothing is secret
    events = []
    for user in range(USERS):
        for step in range(EVENTS):
            late = step > 7
            of_colour = [n for n in range(ITEMS if late else ITEMS - 2) if n % 4 == user % 4]
            liked = draw.random() < 0.8
            item = draw.choice(of_colour) if liked else draw.randrange(ITEMS - 2)
            events.append(Event(user, item, 1_000 * step + draw.randrange(900), draw.choice([4, 5, 3, 1])))
    return events


@dataclass
class Shop:
    """Tables for `init`, a table of new items, and what has to come out.

    ids, new: item ids of both tables; text: of the first item; config: values that `init` has to find, by key
    below `data`; positives: events with label 1; period: of the log; title: of the first item in a bundle.
    """

    tables: list[str]
    new_table: str
    ids: list[str]
    new: list[str]
    text: str
    config: dict[str, Any]
    positives: int
    period: tuple[str, str]
    title: dict[str, str] = field(default_factory=dict)


def numbered(numbers: range, width: int) -> list[str]:
    return [str(number).zfill(width) for number in numbers]


def csv_shop(folder: Path) -> Shop:
    """Part files in folders; ids are padded, and prices are decimals."""
    events = made_events()
    ids, new = numbered(range(ITEMS), 3), numbered(range(ITEMS, ITEMS + 2), 3)

    def rows(names: list[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "sku": names,
                "title": [f"{COLOURS[int(name) % 4]} lamp" for name in names],
                "size": [f"size {int(name) % 3}" for name in names],
                "price": [f"{int(name)}.10" for name in names],
                "link": [f"https://shop.example/{name}" for name in names],
            }
        )

    for name in ("items", "reviews"):
        (folder / name).mkdir()
    rows(ids[:16]).write_csv(folder / "items" / "part-0.csv")
    rows(ids[16:]).write_csv(folder / "items" / "part-1.csv")
    rows(new).write_csv(folder / "new.csv")
    log = pl.DataFrame(
        {
            "reviewer": [f"{event.user:04d}" for event in events],
            "sku": [ids[event.item] for event in events],
            "stars": [str(event.stars) for event in events],
            "when": [f"{START + timedelta(minutes=event.minute):%d/%m/%Y %H:%M:%S}" for event in events],
        }
    )
    for part in range(2):
        log[part::2].write_csv(folder / "reviews" / f"part-{part}.csv")
    (folder / "reviews" / "_SUCCESS").write_text("")
    return Shop(
        tables=["items", "reviews"],
        new_table="new.csv",
        ids=ids,
        new=new,
        text="red lamp\nsize 0",
        config={
            "items.id": "sku",
            "items.text": ["title", "size"],
            "interactions.user": "reviewer",
            "interactions.time": "when",
            "interactions.label": {"column": "stars", "at_least": 4},
        },
        positives=sum(event.stars >= 4 for event in events),
        period=ends(events, timedelta()),
        title={"title": "red lamp", "size": "size 0"},
    )


def ends(events: list[Event], ahead: timedelta) -> tuple[str, str]:
    """First and last event in UTC, where the shop's clock is ahead of it."""
    minutes = [event.minute for event in events]
    first, last = (START + timedelta(minutes=minute) - ahead for minute in (min(minutes), max(minutes)))
    return first.isoformat(timespec="seconds"), last.isoformat(timespec="seconds")


def json_shop(folder: Path) -> Shop:
    """JSON Lines: ids are numbers, titles are nested, tags are lists, times are ISO texts with a zone."""
    events = made_events()

    def lines(numbers: range) -> str:
        rows = [
            {
                "id": n,
                "info": {"title": f"{COLOURS[n % 4]} lamp", "pages": n},
                "tags": ["lamp", COLOURS[n % 4]],
            }
            for n in numbers
        ]
        return "\n".join(json.dumps(row) for row in rows)

    (folder / "items.jsonl").write_text(lines(range(ITEMS)))
    (folder / "new.jsonl").write_text(lines(range(ITEMS, ITEMS + 2)))
    rows = [
        {
            "visitor": f"v{event.user}",
            "item": event.item,
            "at": f"{(START + timedelta(minutes=event.minute)).isoformat()}+05:30",
            "clicked": event.stars >= 4,
        }
        for event in events
    ]
    (folder / "events.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Shop(
        tables=["events.jsonl", "items.jsonl"],
        new_table="new.jsonl",
        ids=[str(n) for n in range(ITEMS)],
        new=[str(n) for n in range(ITEMS, ITEMS + 2)],
        text="red lamp\nlamp, red",
        config={
            "items.id": "id",
            "items.text": ["info.title", "tags"],
            "interactions.user": "visitor",
            "interactions.time": "at",
            "interactions.label": "clicked",
        },
        positives=sum(event.stars >= 4 for event in events),
        period=ends(events, timedelta(hours=5, minutes=30)),
        title={"info.title": "red lamp", "tags": "lamp, red"},
    )


def s3_shop(folder: Path) -> Shop:
    """Hive partitions of Parquet in a store; prices are decimals, times have a zone."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="shop")

    def put(key: str, frame: pl.DataFrame) -> None:
        stream = io.BytesIO()
        frame.write_parquet(stream)
        client.put_object(Bucket="shop", Key=key, Body=stream.getvalue())

    events = made_events()
    ids, new = numbered(range(ITEMS), 5), numbered(range(ITEMS, ITEMS + 2), 5)

    def rows(names: list[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "product_id": names,
                "name": [f"{COLOURS[int(name) % 4]} lamp" for name in names],
                "price": [Decimal(f"{int(name)}.10") for name in names],
            }
        )

    put("items/country=DE/a.parquet", rows(ids[:16]))
    put("items/country=FR/a.parquet", rows(ids[16:]))
    put("new/country=FR/a.parquet", rows(new))
    berlin = ZoneInfo("Europe/Berlin")
    log = pl.DataFrame(
        {
            "customer_id": [event.user for event in events],
            "product_id": [ids[event.item] for event in events],
            "created_at": [(START + timedelta(minutes=e.minute)).replace(tzinfo=berlin) for e in events],
            "amount": [Decimal("1.50") for _ in events],
            "rating": [Decimal(event.stars) for event in events],
        }
    )
    for day, part in log.group_by(pl.col("created_at").dt.date().cast(pl.String)):
        put(f"clicks/day={day[0]}/p.parquet", part)
    put("clicks/_tmp/p.parquet", log)
    return Shop(
        tables=["s3://shop/clicks/", "s3://shop/items"],
        new_table="s3://shop/new",
        ids=ids,
        new=new,
        text="red lamp\nDE",
        config={
            "items.id": "product_id",
            "items.text": ["name", "country"],
            "interactions.user": "customer_id",
            "interactions.time": "created_at",
            "interactions.label": {"column": "rating", "at_least": 4},
        },
        positives=sum(event.stars >= 4 for event in events),
        period=ends(events, timedelta(hours=1)),
        title={"name": "red lamp", "country": "DE"},
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder that tells texts apart by their letters."""
    return tiny_text_encoder(tmp_path_factory.mktemp("shops") / "encoder")


@pytest.fixture
def _store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


@pytest.mark.usefixtures("_store")
@pytest.mark.parametrize("build", [csv_shop, json_shop, s3_shop])
def test_a_shop_from_init_to_serve(
    build: Callable[[Path], Shop],
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in {**SMALL, "encoder.text": str(encoder)}.items():
        monkeypatch.setenv(f"QARM_{key.upper().replace('.', '__')}", value)
    shop = build(tmp_path)

    main(["init", *shop.tables, "--out", "shop.yaml"])
    if build is csv_shop:  # whether the day or the month comes first, only the shop knows
        edited = Path("shop.yaml").read_text().replace("# time_format: ", "time_format: ")
        Path("shop.yaml").write_text(edited)
    config = load_config(Path("shop.yaml"), environment={}).model_dump(mode="json")["data"]
    for key, value in shop.config.items():
        section, _, name = key.partition(".")
        assert config[section][name] == value, key
    capsys.readouterr()
    main(["check", "shop.yaml", "--json"])
    checked = json.loads(capsys.readouterr().out)
    assert (checked["items"], checked["interactions"]) == (ITEMS, USERS * EVENTS)
    assert checked["texts"][shop.ids[0]] == shop.text
    assert (checked["log"]["first"], checked["log"]["last"]) == shop.period
    log = Run(load_config(Path("shop.yaml")), tmp_path).tables[1]
    assert len(log.positives()) == shop.positives

    main(["run", "shop.yaml", "--out", "run"])
    published = Codes.read(Path("run/codes/codes.parquet"))
    assert published.item_ids == sorted(shop.ids, key=shop.ids.index)
    assert Path("run/report/index.html").is_file()

    main(["encode", "run", shop.new_table, "--out", "codes.csv"])
    coded = pl.read_csv("codes.csv", infer_schema=False)
    assert coded["item_id"].to_list() == shop.new
    main(["quantize", "run", "--append", shop.new_table])
    after = Codes.read(Path("run/codes/codes.parquet"))
    assert after.item_ids == [*shop.ids, *shop.new]
    assert after.rq[:ITEMS].tolist() == published.rq.tolist()
    assert after.rq[ITEMS].tolist() == [int(coded[f"rq_{level}"][0]) for level in (1, 2, 3)]
    capsys.readouterr()
    code = exit_code(["monitor", "run", shop.new_table])
    assert code in (0, 3)
    assert "stability_excess  how much" in capsys.readouterr().out

    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    items = next(table for table in shop.tables if "items" in table)
    items = items if "://" in items else f"../{items}"
    new_table = shop.new_table if "://" in shop.new_table else f"../{shop.new_table}"
    main(["export", "../run", "--out", "bundle"])
    main(["export", "../run", "--items", items, new_table, "--out", "both"])
    for bundle, known in (("bundle", ITEMS), ("both", ITEMS + 2)):
        rows = pl.read_parquet(Path(bundle, "items.parquet"))
        assert rows["item_id"].to_list() == after.item_ids
        assert rows[next(iter(shop.title))].null_count() == ITEMS + 2 - known
    assert read_json(Path("../run/tables.json"))["items"].endswith(
        "items.jsonl" if build is json_shop else "items"
    )
    served = answer_of("both", f"/v1/items/{shop.ids[0]}")
    assert served["item_id"] == shop.ids[0]
    assert shop.title.items() <= served["facts"].items()
    assert served["rq"] == published.rq[0].tolist()


def exit_code(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def answer_of(bundle: str, path: str) -> dict[str, Any]:
    """What `qarm serve` answers; it is ended by a signal, as by an operator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
                    answers.append(json.loads(response.read()))
                break
            except OSError:
                time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        main(["serve", bundle, "--port", str(port)])
    finally:
        asking.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return answers[0]
