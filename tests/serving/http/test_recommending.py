"""Recommendations over HTTP: those of `Recommender`, new items by their codes, and what is refused."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient
from tests.serving.fakes import FakeBundle, Fakes

from qarm.core.atomic_io import read_json, write_json
from qarm.core.sealed_folder import MANIFEST, seal
from qarm.quantizer.versions.lifecycle import append_items, refit_codes
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.counting import item_knn
from qarm.recommender.retrieval.recommender import Recommender
from qarm.serving.bundle import Bundle, export_bundle
from qarm.serving.code_store import NewCode
from qarm.serving.export.bundle_writer import KIND
from qarm.serving.limits import Limits


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(Fakes(tmp_path, limits=Limits(history=3, page=20, nearest=4)).app) as made:
        yield made


@pytest.fixture(scope="module")
def real(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Fakes]]:
    """The service on the real bundle; its codes of new items are written to the store by hand."""
    fakes = Fakes(tmp_path_factory.mktemp("recommend"), load=lambda _: Bundle.load(exported))
    with TestClient(fakes.app) as made:
        yield made, fakes


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: Any, status: int, kind: str) -> str:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:qarm:problem:{kind}"), answer.text
    return str(answer.json()["detail"])


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


# ---- the run's own lists ------------------------------------------------------------------------


def test_every_user_gets_the_list_of_the_run(real: tuple[TestClient, Fakes], run: Path) -> None:
    recommender = Recommender.from_run(run)
    batch = recommender.recommend(list(recommender.users), k=7)
    for expected in batch:
        found = ask(real[0], user=expected.user_id, k=7)
        assert found["items"] == [asdict(item) for item in expected.items]
        assert (found["user"], found["popular"], found["notes"]) == (expected.user_id, False, [])


def test_histories_and_bounds_are_those_of_the_run(real: tuple[TestClient, Fakes], run: Path) -> None:
    recommender, items = Recommender.from_run(run), Recommender.from_run(run).item_ids
    history, only, without = [items[3], "nothing", items[9]], items[:30], items[:4]
    for seen in (True, False):
        [expected] = recommender.recommend(
            histories=[history], k=9, only=only, without=without, repeat=not seen
        )
        found = ask(real[0], history=history, k=9, only=only, without=without, exclude_seen=seen)
        assert found["items"] == [asdict(item) for item in expected.items]
        assert found["unknown_items"] == 1
        assert found["notes"] == ["1 unknown items of the history left out"]


def test_similar_items_are_those_of_the_run(real: tuple[TestClient, Fakes], run: Path) -> None:
    recommender = Recommender.from_run(run)
    item = recommender.item_ids[5]
    found = real[0].get(f"/v1/items/{item}/similar?k=4").json()["items"]
    assert [(i["item_id"], i["cosine"]) for i in found] == recommender.similar_items(item, 4)


# ---- new items ----------------------------------------------------------------------------------


def test_a_stored_item_counts_at_once_and_no_more_once_deleted(real: tuple[TestClient, Fakes]) -> None:
    client, fakes = real
    bundle = fakes.service.bundles.current.bundle
    twin = bundle.item_ids[7]
    row = bundle.row(twin)
    codes = bundle.codes
    everything = {"history": [twin], "k": len(bundle) + 1, "exclude_seen": False}
    before = ask(client, **everything)
    new = NewCode(
        "n1", bundle.version, codes.version, b"1", codes.rq[row], codes.vq[row],
        bundle.vectors.vectors[row], {"title": "new"},
    )  # fmt: skip
    fakes.service.store.store.append([[new]])
    after = ask(client, **everything)
    assert set(ids(after)) - set(ids(before)) == {"n1"}
    assert [item for item in ids(after) if item != "n1"] == ids(before)
    assert ask(client, history=["n1"])["unknown_items"] == 0
    assert ids(ask(client, history=["n1"], k=1, only=["n1"], exclude_seen=False)) == ["n1"]
    assert ids(client.get("/v1/items/n1/similar?k=3").json()) != []
    assert client.delete("/v1/items/n1").status_code == 200
    assert ask(client, **everything) == before
    assert ask(client, history=["n1"])["unknown_items"] == 1


def test_appended_items_are_recommended_after_an_export(run: Path, world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    append_items(copy, world / "new.parquet")
    tables = (world / "items.parquet", world / "new.parquet")
    export_bundle(copy, tmp_path / "bundle", items=tables)
    bundle = Bundle.load(tmp_path / "bundle")
    new = pl.read_parquet(world / "new.parquet")["item_id"].to_list()
    expected = Recommender.from_run(copy).recommend(histories=[new[:2]], k=48)
    assert bundle.recommender.recommend(histories=[new[:2]], k=48) == expected
    assert set(new[2:]) <= {item.item_id for item in expected[0].items}
    refit_codes(copy)
    with pytest.raises(Exception, match="trained on other codes"):
        export_bundle(copy, tmp_path / "second", items=tables)


# ---- what there is not --------------------------------------------------------------------------


def test_a_bundle_without_histories_says_so(run: Path, world: Path, tmp_path: Path) -> None:
    made = export_bundle(run, tmp_path / "plain", items=(world / "items.parquet",), histories=False)
    assert (made.users, made.histories_bytes) == (None, None)
    full = export_bundle(run, tmp_path / "full", items=(world / "items.parquet",))
    assert full.users == len(Recommender.from_run(run).users)
    size = (tmp_path / "full" / "retriever" / "histories.parquet").stat().st_size
    assert (full.histories_bytes, full.bytes - made.bytes >= size) == (size, True)
    with TestClient(Fakes(tmp_path / "s", load=lambda _: Bundle.load(tmp_path / "plain")).app) as client:
        detail = problem(client.post("/v1/recommend", json={"user": "u1"}), 409, "no-histories")
        assert "send `history`" in detail
        assert len(ask(client, history=[])["items"]) == 10


def test_a_bundle_of_an_earlier_version_cannot_recommend(exported: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(exported, tmp_path / "old"))
    shutil.rmtree(old / "retriever")
    content = read_json(old / "bundle.json")
    write_json(old / "bundle.json", {k: v for k, v in content.items() if k not in ("retriever", "users")})
    (old / MANIFEST).unlink()
    seal(old, kind=KIND)
    with TestClient(Fakes(tmp_path / "s", load=lambda _: Bundle.load(old)).app) as client:
        for answer in (
            client.post("/v1/recommend", json={"history": []}), client.get("/v1/items/i00001/similar"),
        ):  # fmt: skip
            assert "qarm retrieve" in problem(answer, 404, "no-retriever")


def test_a_changed_file_of_the_retriever_is_named(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "bundle"))
    path = copy / "retriever" / "blend.json"
    path.write_text(path.read_text().replace("1.0", "2.0"))
    with pytest.raises(Exception, match=r"changed: retriever/blend\.json"):
        Bundle.load(copy)


# ---- requests -----------------------------------------------------------------------------------


def test_unknown_users_get_the_popular_items_and_are_told(client: TestClient) -> None:
    found = ask(client, user="<script>alert(1)</script>", k=2)
    assert ids(found) == ["i5", "i6"]
    assert (found["popular"], found["notes"]) == (True, ["unknown user: popular items of late"])
    assert found["user"] == "<script>alert(1)</script>"
    raw = client.post("/v1/recommend", json={"user": "<script>"})
    assert raw.headers["content-type"] == "application/json"
    assert ids(ask(client, history=[], k=2)) == ["i5", "i6"]
    strange = ask(client, history=["a", "b", "a"], k=1)
    assert (strange["unknown_items"], strange["popular"]) == (3, True)


def test_lists_by_hand(client: TestClient) -> None:
    assert ids(ask(client, user="u1", k=2)) == ["i2", "i3"]
    assert ids(ask(client, user="u1", k=2, exclude_seen=False)) == ["i1", "i0"]  # the later event weighs more
    assert ids(ask(client, history=["i0", "i1"], k=2)) == ["i2", "i3"]
    assert len(ask(client, user="u2", k=20)["items"]) == 11
    assert ids(ask(client, user="u2", only=["i8"], without=["i8"])) == []
    near = client.get("/v1/items/i4/similar?k=99").json()
    assert {item["item_id"] for item in near["items"]} == {"i2", "i3", "i5", "i6"}  # at most `nearest`


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({}, "invalid-request", "one of the two"),
        ({"user": "u1", "history": []}, "invalid-request", "one of the two"),
        ({"user": "u1", "k": 0}, "invalid-request", "greater than or equal to 1"),
        ({"user": "u1", "k": 21}, "too-many-items", "got k 21, need at most 20"),
        ({"history": ["i1"] * 4}, "too-many-items", "got history 4, need at most 3"),
        ({"user": "u1", "only": ["nope"]}, "unknown-items", "no item nope in the catalogue of 12"),
        ({"user": "u1", "without": ["nope"]}, "unknown-items", "no item nope"),
        ({"user": 7}, "invalid-request", "valid string"),
        ({"user": "u1", "size": 3}, "invalid-request", "not permitted"),
    ],
)
def test_wrong_requests_are_refused(client: TestClient, body: dict, kind: str, said: str) -> None:
    answer = client.post("/v1/recommend", json=body)
    problem(answer, 422, kind)
    assert said in answer.text


def test_similar_of_an_unknown_item_and_an_id_that_ends_like_the_route(client: TestClient) -> None:
    problem(client.get("/v1/items/nope/similar"), 404, "no-such-item")
    assert client.get("/v1/items/i1/similar?k=0").status_code == 422
    client.post("/v1/codes", json={"item_id": "a/similar", "text": {"title": "hat"}})
    assert client.get("/v1/items/a/similar").json()["item_id"] == "a/similar"
    assert "items" in client.get("/v1/items/a/similar/similar").json()


def test_a_retriever_without_vectors_has_no_similar_items(tmp_path: Path) -> None:
    def load(folder: Path) -> FakeBundle:
        bundle = FakeBundle(folder)
        counting = {"item-knn": item_knn(bundle.recommender.histories, 12)}
        bundle.recommender.blend = Blend(counting, {"item-knn": 1.0}, bundle.recommender.blend.cold)
        return bundle

    with TestClient(Fakes(tmp_path, load=load).app) as client:
        assert "retriever.blend" in problem(client.get("/v1/items/i1/similar"), 409, "no-item-vectors")
