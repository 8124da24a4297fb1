"""The store of new codes: on the disk before the answer, never changed, whatever is killed or comes twice."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qarm.errors import ArtifactError
from qarm.serving.code_store import ContentConflict, NewCode, Store, StoreError, content_digest, damaged_rows
from qarm.serving.store_queue import StoreQueue


def new(item_id: str, *, rq: tuple[int, ...] = (1, 2, 3), bundle: str = "a", content: str = "x") -> NewCode:
    codes, vector = np.array(rq, dtype=np.int32), np.array([0.1, -2.5], dtype=np.float32)
    digest = content_digest({"title": content}, None, None)
    return NewCode(item_id, bundle, 7, digest, codes, codes[:2], vector, {"title": content})


def same(one: NewCode, other: NewCode) -> bool:
    arrays = ("rq", "vq", "vector")
    plain = dict.fromkeys(arrays)
    return replace(one, **plain) == replace(other, **plain) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_appended_comes_back_as_it_was(store: Store) -> None:
    rows = [new("n1"), new("n2", rq=(1, 2, 30)), replace(new("n3", rq=(12, 0, 0)), vq=None)]
    (stored,) = store.append([rows])
    found = [store.find(row.item_id, "a") for row in rows]
    assert all(map(same, rows, stored))
    assert all(map(same, rows[:2], found[:2]))
    assert found[2].vq is None
    assert store.find("n1", "b") is None
    store.close()


def test_the_same_again_changes_nothing_and_other_content_is_refused_whole(store: Store) -> None:
    store.append([[new("n1")]])
    again, refused, fine = store.append(
        [
            [replace(new("n1"), vector=np.zeros(2, dtype=np.float32))],
            [new("n2"), new("n1", content="other")],
            [new("n3")],
        ]
    )
    assert same(again[0], new("n1"))  # as it was first, whatever was made this time
    assert isinstance(refused, ContentConflict)
    assert refused.item_ids == ["n1"]
    assert [row.item_id for row in fine] == ["n3"]
    assert store.find("n2", "a") is None
    assert store.count((), "a") == 2


def test_another_bundle_adds_a_row_and_the_first_stays(store: Store) -> None:
    store.append([[new("n1")], [new("n1", bundle="b", rq=(5, 5, 5))]])
    assert store.find("n1", "a").rq.tolist() == [1, 2, 3]
    assert store.latest("n1").bundle == "b"
    assert store.latest("n2") is None


def test_rows_of_a_bundle_come_in_order_and_the_state_changes_with_each(store: Store) -> None:
    states = [store.state()]
    assert store.of_bundle("a") == []
    for rows in ([new("n2"), new("n1")], [new("n1", bundle="b")], [new("n3")]):
        store.append([rows])
        states.append(store.state())
    assert [row.item_id for row in store.of_bundle("a")] == ["n2", "n1", "n3"]
    assert store.state() == states[-1]  # reading changes nothing
    store.delete("n1")
    states.append(store.state())
    assert len(set(states)) == len(states)
    assert [row.item_id for row in store.of_bundle("a")] == ["n2", "n3"]


def test_prefixes_are_of_whole_codes(store: Store) -> None:
    rows = [new("b", rq=(1, 2, 3)), new("a", rq=(1, 2, 30)), new("c", rq=(1, 20, 3)), new("d", rq=(12, 2, 3))]
    store.append([rows, [new("e", bundle="b")]])
    expected = {(): "bacd", (1,): "bac", (1, 2): "ba", (1, 2, 3): "b", (12,): "d", (2,): "", (1, 2, 3, 4): ""}
    for prefix, items in expected.items():
        assert store.under(prefix, "a", first=0, count=9) == list(items)
        assert store.count(prefix, "a") == len(items)
    assert store.under((1,), "a", first=1, count=1) == ["a"]


def test_the_database_itself_refuses_to_change_a_row(store: Store, tmp_path: Path) -> None:
    store.append([[new("n1")]])
    with sqlite3.connect(store.path) as other:
        for statement in ("UPDATE codes SET version = 9", "DELETE FROM codes"):
            with pytest.raises(sqlite3.IntegrityError, match="never move"):
                other.execute(statement)
    other.close()
    assert same(store.find("n1", "a"), new("n1"))


def test_a_kill_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    """The child says which items are stored and is killed in the middle of its work, several times."""
    child = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.serving.test_code_store import new\n"
        "from qarm.serving.code_store import Store; store = Store(Path(sys.argv[1]))\n"
        "for n in range(int(sys.argv[3]), 10**6):\n"
        "    store.append([[new(f'n{n}')]]); print(f'n{n}', flush=True)\n"
    )
    acknowledged: list[str] = []
    for round_ in range(3):
        command = [
            sys.executable,
            "-c",
            child,
            str(tmp_path),
            str(Path(__file__).parents[2]),
            str(round_ * 10**5),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            acknowledged += [running.stdout.readline().strip() for _ in range(20)]
            os.kill(running.pid, signal.SIGKILL)
            acknowledged += running.stdout.read().split("\n")[:-1]
    store = Store(tmp_path)
    assert len(acknowledged) >= 60
    assert all(same(store.find(item, "a"), new(item)) for item in acknowledged)
    assert store.append([[new("after")]])[0]
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ArtifactError, match="cannot be used as a store"):
        Store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="--store"):
        Store(tmp_path / "file")
    store = Store(tmp_path / "later")
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(ArtifactError, match="format 9"):
        Store(tmp_path / "later")


def test_content_is_texts_by_name_and_media() -> None:
    texts = {"title": "a", "description": "b"}
    base = content_digest(texts, b"i", b"s")
    assert base == content_digest({"description": "b", "title": "a", "more": None}, b"i", b"s")
    others = [
        content_digest({"title": "a", "description": ""}, b"i", b"s"),
        content_digest({"title": "b", "description": "a"}, b"i", b"s"),
        content_digest(texts, None, b"s"),
        content_digest(texts, b"s", b"i"),
    ]
    assert len({base, *others}) == 5


def test_appends_that_come_together_share_a_flush(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    append = store.append

    def counted(requests):
        calls.append(len(requests))
        return append(requests)

    monkeypatch.setattr(store, "append", counted)

    async def run() -> list[object]:
        queue = StoreQueue(store)
        asked = [queue.append([new(f"n{n}")]) for n in range(20)]
        asked.append(queue.append([new("n0", content="other")]))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert await queue.under((1,), "a", first=0, count=3) == (20, ["n0", "n1", "n2"])
        assert (await queue.find("n3", "later")).item_id == "n3"
        await queue.close()
        return found

    found = asyncio.run(run())
    assert [rows[0].item_id for rows in found[:20]] == [f"n{n}" for n in range(20)]
    assert isinstance(found[20], ContentConflict)
    assert sum(calls) == 21
    assert len(calls) <= 3


# ---- damage, deletion, a full disk ----------------------------------------------------------------


def changed_by_hand(store: Store, statement: str) -> None:
    with sqlite3.connect(store.path) as other:
        other.execute("DROP TRIGGER no_update")
        other.execute(statement)
    other.close()


@pytest.mark.parametrize(
    "change",
    [
        "rq = x'090000000200000003000000'",
        "vq = NULL",
        "vector = x'0000000000000000'",
        """facts = '{"title": "y"}'""",
        "version = 8",
        "content = x'00'",
        "checksum = x'00'",
    ],
)
def test_a_changed_row_is_named_and_not_given_out(store: Store, change: str) -> None:
    store.append([[new("n1"), new("n2")]])
    assert damaged_rows(store.path.parent) == []
    changed_by_hand(store, f"UPDATE codes SET {change} WHERE item_id = 'n1'")  # noqa: S608
    assert damaged_rows(store.path.parent) == [f"{store.path}: the row of item 'n1'"]
    with pytest.raises(StoreError, match="row of item 'n1' is damaged; restore the store from a copy"):
        store.find("n1", "a")
    assert same(store.find("n2", "a"), new("n2"))


def test_rows_of_earlier_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([[new("n1")]])
    changed_by_hand(store, "ALTER TABLE codes DROP COLUMN checksum")
    store.close()
    again = Store(tmp_path)
    again.append([[new("n2")]])
    assert same(again.find("n1", "a"), new("n1"))
    changed_by_hand(again, "UPDATE codes SET version = 8")
    assert damaged_rows(tmp_path) == [f"{again.path}: the row of item 'n2'"]


def test_a_text_that_is_no_utf8_is_damage(store: Store) -> None:
    store.append([[new("n1"), new("n2")]])
    changed_by_hand(store, "UPDATE codes SET facts = CAST(x'ff' AS TEXT) WHERE item_id = 'n1'")
    with pytest.raises(StoreError, match="codes.sqlite is damaged .*restore the store from a copy"):
        store.find("n1", "a")
    assert same(store.find("n2", "a"), new("n2"))
    (said,) = damaged_rows(store.path.parent)
    assert said.startswith(f"{store.path}: not readable")


def test_a_store_whose_pages_are_damaged_is_named(store: Store) -> None:
    store.append([[new(f"n{number}") for number in range(200)]])
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096 + 3 : 4096 + 5] = b"\xff\xff"  # number of the cells of the second page
    store.path.write_bytes(content)
    (said,) = damaged_rows(store.path.parent)
    assert str(store.path) in said


def test_a_deletion_leaves_its_line_and_no_row_can_go_without(store: Store) -> None:
    store.append([[new("n1"), new("n1", bundle="b"), new("n2")]])
    assert store.delete("n1") == 2
    assert store.delete("n1") == 0
    assert store.find("n1", "a") is store.latest("n1") is None
    assert [line[:2] for line in store.deletions()] == [("n1", "a"), ("n1", "b")]
    with sqlite3.connect(store.path) as other, pytest.raises(sqlite3.IntegrityError, match="never move"):
        other.execute("DELETE FROM codes")
    other.close()
    assert store.delete("n2") == 1  # the last one; its number is not given again
    store.append([[new("n1", content="other")]])
    assert store.find("n1", "a").facts == {"title": "other"}
    with sqlite3.connect(store.path) as other, pytest.raises(sqlite3.IntegrityError, match="never move"):
        other.execute("DELETE FROM codes")
    other.close()


def test_a_full_disk_says_so_and_nothing_is_kept(store: Store) -> None:
    store.append([[new("n1")]])
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="no space left") as caught:
        store.append([[new(f"m{n}") for n in range(2000)]])
    assert caught.value.full
    assert store.find("m0", "a") is None
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.append([[new("m0")]])
    assert same(store.find("m0", "a"), new("m0"))


@pytest.mark.parametrize("gone", ["codes.sqlite", "codes.sqlite-wal"])
def test_a_store_whose_files_were_removed_takes_nothing(store: Store, gone: str) -> None:
    store.append([[new("n1")]])
    store.path.with_name(gone).unlink()
    for attempt in (lambda: store.append([[new("n2")]]), lambda: store.delete("n1"), store.check_files):
        with pytest.raises(StoreError, match="was removed or replaced under the service"):
            attempt()
