"""Proposal of a config: right columns, labels and splits of odd shops; what cannot be guessed is refused."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from qarm.cli import main
from qarm.config import load_config
from qarm.errors import InputError
from qarm.pipeline import propose_config, write_proposal
from qarm.schemas.proposal import Guess, Proposal

IDS = [f"{n:03d}" for n in range(40)]
START = datetime(2024, 1, 1)


def items(**columns: Any) -> pl.DataFrame:
    content = {"sku": IDS, "title": [f"red lamp {n}" for n in range(40)]}
    return pl.DataFrame({name: value for name, value in {**content, **columns}.items() if value is not None})


def events(count: int = 400, **columns: Any) -> pl.DataFrame:
    content = {
        "customer": [f"c{n % 20}" for n in range(count)],
        "sku": [IDS[n * 7 % 40 if n > 20 else n % 5] for n in range(count)],
        "ts": [1_700_000_000 + n for n in range(count)],
    }
    return pl.DataFrame({name: value for name, value in {**content, **columns}.items() if value is not None})


def proposed(folder: Path, *tables: pl.DataFrame) -> tuple[Proposal, Mapping[str, Any]]:
    """Proposal for tables of these contents, and its values by key, without `data.`."""
    places = []
    for number, table in enumerate(tables):
        places.append(folder / f"t{number}.parquet")
        table.write_parquet(places[-1])
    proposal = propose_config(places)
    write_proposal(proposal, folder / "shop.yaml", overwrite=True)
    load_config(folder / "shop.yaml", environment={})
    return proposal, {one.key.removeprefix("data."): one.value for one in proposal.guesses if one.active}


def unsure(proposal: Proposal) -> set[str]:
    return {guess.key.removeprefix("data.") for guess in proposal.unsure}


@pytest.mark.parametrize("swapped", [False, True])
def test_which_table_is_the_log_does_not_depend_on_their_order(tmp_path: Path, swapped: bool) -> None:
    tables = [items(), events()]
    proposal, values = proposed(tmp_path, *(reversed(tables) if swapped else tables))
    assert Path(values["items.path"]).name == f"t{int(swapped)}.parquet"
    assert {key: values[key] for key in ("items.id", "items.text", "items.image", "items.audio")} == {
        "items.id": "sku",
        "items.text": ["title"],
        "items.image": None,
        "items.audio": None,
    }
    log = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("interactions.")}
    assert log.pop("path").endswith(f"t{int(not swapped)}.parquet")
    assert log == {"user": "customer", "item": "sku", "time": "ts", "label": None}
    assert {key: values[key] for key in values if key.startswith("split")} == {
        "split.kind": "time",
        "split.test": 0.2,
        "split.valid": 0.1,
    }
    assert unsure(proposal) <= {"split.cold_items"}


def test_whole_numbers_of_users_that_are_ids_of_items_too(tmp_path: Path) -> None:
    """Users 0 to 19 are all among items 0 to 39, and one event in 50 is on an item that has gone."""
    numbers = list(range(40))
    gone = [99 if n % 50 == 0 else n * 7 % 40 for n in range(400)]
    log = events(customer=None, sku=None, user_id=[n % 20 for n in range(400)], item_id=gone)
    _, values = proposed(tmp_path, items(sku=None, id=numbers), log)
    assert (values["items.id"], values["interactions.item"]) == ("id", "item_id")
    assert values["interactions.user"] == "user_id"
    assert "interactions.max_unknown" not in values


def test_events_on_items_that_the_catalogue_lacks_raise_the_limit_and_are_marked(tmp_path: Path) -> None:
    lost = [IDS[n % 30] if n % 4 else "gone" for n in range(400)]
    proposal, values = proposed(tmp_path, items(), events(sku=lost))
    assert values["interactions.max_unknown"] == 0.26
    assert "interactions.max_unknown" in unsure(proposal)


@pytest.mark.parametrize(
    ("column", "values", "label"),
    [
        ("stars", [1, 2, 3, 4, 5], {"column": "stars", "at_least": 4}),
        ("rating", [0.5, 2.0, 3.5, 4.0, 5.0], {"column": "rating", "at_least": 4}),
        ("score", [2, 4, 6, 8, 10], {"column": "score", "at_least": 8}),
        ("Rating", ["1", "3", "4", "5", "2"], {"column": "Rating", "at_least": 4}),
        ("clicked", [0, 1, 0, 1, 0], "clicked"),
        ("liked", [True, False, True, False, True], "liked"),
        ("clicked", ["true", "false", "true", "false", "true"], "clicked"),
        ("amount", [1, 2, 3, 4, 5], None),
        ("clicked", [1, 1, 1, 1, 1], None),
    ],
)
def test_labels(tmp_path: Path, column: str, values: list[Any], label: object) -> None:
    proposal, found = proposed(tmp_path, items(), events(**{column: values * 80}))
    assert found["interactions.label"] == label
    assert ("interactions.label" in unsure(proposal)) == isinstance(label, dict)


def test_events_without_a_grade_are_left_out_by_a_condition(tmp_path: Path) -> None:
    _, values = proposed(tmp_path, items(), events(stars=[1, None, 3, 4, 5] * 80))
    assert values["interactions.where"] == {"stars": {"at_least": 1.0}}
    assert values["interactions.label"] == {"column": "stars", "at_least": 4}


def test_several_labels_weights_and_kinds_of_events_are_shown_but_not_taken(tmp_path: Path) -> None:
    more = {
        "clicked": [0, 1] * 200,
        "bought": [0, 0, 0, 1] * 100,
        "event": ["view", "view", "cart", "purchase"] * 100,
        "price": [1.5] * 400,
    }
    proposal, values = proposed(tmp_path, items(), events(**more))
    assert values["interactions.label"] == "clicked"
    hidden = {guess.key.removeprefix("data."): guess.value for guess in proposal.guesses if not guess.active}
    hidden.pop("split.cold_items", None)
    assert hidden == {
        "interactions.labels": {"bought": "bought"},
        "interactions.where": {"event": "purchase"},
        "interactions.weight": "price",
    }
    assert {*hidden, "interactions.label"} <= unsure(proposal)
    assert proposed(tmp_path, items(), events(weight=[1.5] * 400))[1]["interactions.weight"] == "weight"


@pytest.mark.parametrize(
    "times",
    [
        {"ts": None, "created_at": [START + timedelta(hours=n) for n in range(400)]},
        {"ts": None, "happened": [(START + timedelta(hours=n)).isoformat() for n in range(400)]},
        {"ts": None, "date": [(START + timedelta(days=n)).strftime("%d/%m/%Y") for n in range(400)]},
        {"ts": None, "eventTime": [1.7e9 + n / 2 for n in range(400)]},
    ],
)
def test_times(tmp_path: Path, times: dict[str, Any]) -> None:
    proposal, values = proposed(tmp_path, items(), events(**times))
    assert values["interactions.time"] == list(times)[1]
    assert not proposal.problems


def test_ambiguous_dates_are_left_to_who_knows_them(tmp_path: Path) -> None:
    days = [f"{n % 12 + 1:02d}/{n // 12 % 12 + 1:02d}/{2000 + n // 144}" for n in range(400)]
    proposal, values = proposed(tmp_path, items(), events(ts=None, date=days))
    assert values["interactions.time"] == "date"
    assert "interactions.time_format" not in values
    assert {"interactions.time", "interactions.time_format", "split.kind"} <= unsure(proposal)
    assert "set data.interactions.time_format" in " ".join(proposal.problems)
    text = (tmp_path / "shop.yaml").read_text()
    assert "    # time_format: '%d/%m/%Y'  # (?) set it to this or to '%m/%d/%Y'" in text
    (tmp_path / "shop.yaml").write_text(text.replace("# time_format", "time_format"))
    assert load_config(tmp_path / "shop.yaml", environment={}).data.interactions.time_format == "%d/%m/%Y"


def test_positions_of_each_user_are_split_within_the_user(tmp_path: Path) -> None:
    proposal, values = proposed(tmp_path, items(), events(ts=None, step=[n // 20 for n in range(400)]))
    assert values["interactions.order"] == "step"
    assert values["split.kind"] == "user_tail"
    assert {"interactions.order", "split.kind"} <= unsure(proposal)


def test_a_split_whose_parts_have_positives(tmp_path: Path) -> None:
    """The last fifth has none."""
    late = [int(n < 250 and n % 2 == 0) for n in range(400)]
    _, values = proposed(tmp_path, items(), events(liked=late))
    assert (values["split.test"], values["split.valid"]) == (0.4, 0.2)
    never = [int(n < 40) for n in range(400)]
    proposal, values = proposed(tmp_path, items(), events(liked=never))
    assert "split.test" not in values
    assert "no positive event falls into test" in " ".join(proposal.problems)


def test_columns_of_the_catalogue(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "p" / f"{number}.png")
    columns = {
        "description": ["soft light"] * 40,
        "info": [{"brand": "Lumo", "url": "https://shop.example/x"}] * 40,
        "tags": [["new", "red"]] * 40,
        "photo": [f"p/{n}.png" for n in range(40)],
        "cover": [f"lost/{n}.png" for n in range(40)],
        "image_link": ["https://shop.example/a.png"] * 40,
        "sound": [b"RIFF"] * 40,
        "digest": [f"{n:032x}" for n in range(40)],
        "added": ["2024-01-31"] * 40,
        "price": ["1.10"] * 40,
        "in_stock": ["true"] * 40,
        "vector": [[0.1, 0.2]] * 40,
    }
    proposal, values = proposed(tmp_path, items(**columns), events())
    assert values["items.text"] == ["title", "info.brand", "description", "tags"]
    assert (values["items.image"], values["items.audio"]) == ("photo", "sound")
    notes = " ".join(proposal.notes)
    assert "column cover is no image: it holds paths such as lost/0.png" in notes
    assert "column image_link is no image: it holds addresses" in notes


def test_pictures_as_other_libraries_hold_them(tmp_path: Path) -> None:
    """Structs of bytes and path, and lists of them."""
    structs = [{"bytes": b"\x89PNG", "path": f"{n}.png"} for n in range(40)]
    sounds = [{"bytes": b"RIFF", "path": None} for _ in range(40)]
    _, values = proposed(tmp_path, items(image=structs, audio=sounds), events())
    assert (values["items.image"], values["items.audio"], values["items.text"]) == (
        "image",
        "audio",
        ["title"],
    )
    _, values = proposed(tmp_path, items(photos=[[one, one] for one in structs], price=[1.5] * 40), events())
    assert (values["items.image"], values["items.text"]) == ("photos", ["title"])
    for number in range(2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    _, values = proposed(tmp_path, items(photos=[["0.png", "1.png"]] * 40), events())
    assert (values["items.image"], values["items.text"]) == ("photos", ["title"])


def test_more_texts_than_are_read(tmp_path: Path) -> None:
    many = {f"note_{n}": ["some words"] * 40 for n in range(9)}
    proposal, values = proposed(tmp_path, items(**many), events())
    assert values["items.text"] == ["title", *(f"note_{n}" for n in range(5))]
    assert "items.text" in unsure(proposal)
    (told,) = [guess.why for guess in proposal.guesses if guess.key == "data.items.text"]
    assert told.endswith("left out: note_5, note_6, note_7, note_8")


def test_users_and_tables_that_are_not_used(tmp_path: Path) -> None:
    users = pl.DataFrame({"customer": [f"c{n}" for n in range(20)], "country": ["DE", "FR"] * 10})
    stores = pl.DataFrame({"store": ["x", "y"], "city": ["Ulm", "Bonn"]})
    proposal, values = proposed(tmp_path, users, items(), stores, events())
    assert Path(values["users.path"]).name == "t0.parquet"
    assert (values["users.id"], values["users.features"]) == ("customer", ["country"])
    assert proposal.notes == [f"{tmp_path / 't2.parquet'} is not used: no ids that match"]


def test_two_logs_are_marked(tmp_path: Path) -> None:
    proposal, values = proposed(tmp_path, items(), events(100), events())
    assert Path(values["interactions.path"]).name == "t2.parquet"
    assert "items.path" in unsure(proposal)
    assert "t1.parquet could be the log too" in next(
        guess.why for guess in proposal.guesses if guess.key == "data.items.path"
    )


def test_a_column_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    rows = [f'{{"sku": "{one}", "title": "red lamp", "mix": {1 if n else {}}}}' for n, one in enumerate(IDS)]
    (tmp_path / "items.jsonl").write_text("\n".join(rows))
    (tmp_path / "bad.csv").write_bytes(
        b"customer,sku,ts,remark\n" + b"".join(b"c%d,%03d,%d,\xff\n" % (n % 9, n % 40, n) for n in range(400))
    )
    proposal = propose_config([tmp_path / "items.jsonl", str(tmp_path / "bad.csv")])
    values = {guess.key: guess.value for guess in proposal.guesses}
    assert values["data.items.text"] == ["title"]
    assert values["data.interactions.item"] == "sku"
    assert "column remark is left out, it cannot be read: " in " ".join(proposal.notes)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            [items(), events(ts=None)],
            "no column of times, and none named as an order is .* add one, or rename",
        ),
        ([items(), events(customer=None)], "none of its columns .* is named as users are"),
        ([items(), events(ts=None, customer=None)], "(?s)2 problems.*users.*no column of times"),
        ([items()], "got 1 table, need two"),
        (
            [items(), events(sku=[str(n % 40) + "x" for n in range(400)])],
            "no column of one table holds the ids",
        ),
        ([items(sku=[float(n) for n in range(40)]), events()], "floats are none"),
        ([items(title=None), events()], "no column of words, pictures or sounds among sku"),
    ],
)
def test_what_cannot_be_guessed_is_refused(tmp_path: Path, tables: list[pl.DataFrame], message: str) -> None:
    with pytest.raises(InputError, match=message):
        proposed(tmp_path, *tables)
    assert not (tmp_path / "shop.yaml").exists()


def test_names_that_mean_something_in_yaml(tmp_path: Path) -> None:
    odd = {"title": None, "yes": ["red lamp"] * 40, "a: b #c": ["blue lamp"] * 40, "1": ["rug"] * 40}
    _, values = proposed(tmp_path, items(**odd), events(customer=None, **{"User ID": ["a", "b"] * 200}))
    config = load_config(tmp_path / "shop.yaml", environment={})
    assert config.data.items.text == values["items.text"] == ["yes", "a: b #c", "1"]
    assert config.data.interactions.user == "User ID"
    guess = Guess(key="data.items.id", value="x", why="two\nlines # here", sure=False)
    write_proposal(Proposal(guesses=[guess], notes=["a\nb"], problems=[]), tmp_path / "odd.yaml")
    assert load_config(tmp_path / "odd.yaml", environment={}).data.items.id == "x"


def test_the_command_checks_out_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qarm.pipeline.check.encoder_requirements", lambda *_, **__: iter(()))
    items().write_csv("items.csv")
    events(stars=[1, 2, 3, 4, 5] * 80).write_parquet("log.parquet")
    main(["init", "log.parquet", "items.csv", "--out", "shop.yaml"])
    told = capsys.readouterr().out.splitlines()
    assert '  data.items.id: "sku"  a value for each item' in told
    assert any(
        line.startswith('? data.interactions.label: {"column": "stars", "at_least": 4}') for line in told
    )
    assert told[-1].endswith("next: qarm check shop.yaml")
    main(["check", "shop.yaml"])
    assert "items: 40" in capsys.readouterr().out
    main(["init", "items.csv", "log.parquet", "--out", "shop.yaml"])  # the same once more changes nothing
    Path("shop.yaml").write_text(Path("shop.yaml").read_text() + "# mine\n")
    before = Path("shop.yaml").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["init", "items.csv", "log.parquet", "--out", "shop.yaml"])
    assert end.value.code == 2
    assert "is there already; give another name, or --overwrite" in capsys.readouterr().err
    assert Path("shop.yaml").read_bytes() == before
    main(["init", "items.csv", "log.parquet", "--out", "shop.yaml", "--overwrite", "--json"])
    assert '"problems": []' in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["init", "items.csv", "items.csv", "--out", "other.yaml"])
    assert end.value.code == 2
    assert "got items.csv several times" in capsys.readouterr().err
