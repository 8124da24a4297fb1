"""Every route, over a bundle that can be followed by hand; errors are problem documents."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tests.serving.fakes import TOKEN, Fakes, expected

from qarm.serving.http.problems import PROBLEM_TYPE
from qarm.serving.limits import Limits

LIMITS = Limits(body=60_000, batch=3, text=50, item_id=8, history=3, candidates=4, page=5, nearest=4)


def client_of(fakes: Fakes) -> TestClient:
    return TestClient(fakes.app, raise_server_exceptions=True)


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Fakes:
    return Fakes(tmp_path_factory.mktemp("service"), limits=LIMITS)


@pytest.fixture(scope="module")
def client(fakes: Fakes) -> Iterator[TestClient]:
    with client_of(fakes) as made:
        yield made


def problem(response: Any, status: int, kind: str | None) -> dict[str, Any]:
    """The document, after what RFC 9457 asks for was checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_TYPE
    found = response.json()
    assert found["status"] == status
    assert found["type"] == ("about:blank" if kind is None else f"urn:qarm:problem:{kind}")
    assert found["title"]
    assert "Traceback" not in response.text
    return found


def picture(size: int = 8) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(made, "PNG")
    return made.getvalue()


def sound(seconds: float = 0.1) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, np.zeros(round(8000 * seconds), dtype=np.float32), 8000, format="WAV")
    return made.getvalue()


# ---- new items ----------------------------------------------------------------------------------


def test_one_item_is_coded_and_kept(client: TestClient) -> None:
    item = {"item_id": "n1", "text": {"title": "red hat", "description": None}}
    answer = client.post("/v1/codes", json=item).json()
    made = expected("red hat")
    assert answer == {
        "bundle": "version-of-one",
        "version": 3,
        "items": [
            {
                "item_id": "n1",
                "rq": made.rq.tolist(),
                "vq": made.vq.tolist(),
                "code": "-".join(map(str, made.rq)),
                "vector": made.vector.tolist(),
                "stored": True,
            }
        ],
    }
    assert client.post("/v1/codes", json=item).json() == answer
    found = client.get("/v1/items/n1").json()
    assert (found["rq"], found["published"], found["bundle"]) == (made.rq.tolist(), False, "version-of-one")
    assert found["facts"] == {"item_id": "n1", "title": "red hat", "description": None}
    page = client.get(f"/v1/codes/{answer['items'][0]['code']}").json()
    assert page["items"] == ["n1"]


def test_without_an_id_or_with_store_false_nothing_is_kept(client: TestClient) -> None:
    plain = client.post("/v1/codes", json={"text": {"title": "coat"}}).json()["items"][0]
    assert (plain["item_id"], plain["stored"]) == (None, False)
    dry = client.post("/v1/codes?store=false", json={"item_id": "dry", "text": {"title": "coat"}}).json()
    assert dry["items"][0] == plain | {"item_id": "dry"}
    problem(client.get("/v1/items/dry"), 404, "no-such-item")
    published = client.post("/v1/codes?store=false", json={"item_id": "i1", "text": {"title": "coat"}})
    assert published.json()["items"][0]["rq"] == plain["rq"]


def test_a_batch_keeps_its_order(client: TestClient, fakes: Fakes) -> None:
    client.post("/v1/codes", json={"item_id": "b2", "text": {"title": "two"}})
    calls = len(fakes.worker.calls)
    items = [{"item_id": "b1", "text": {"title": "one"}}, {"item_id": "b2", "text": {"title": "two"}}]
    answer = client.post("/v1/codes", json={"items": [*items, {"text": {"title": "three"}}]}).json()
    assert [item["rq"] for item in answer["items"]] == [
        expected(t).rq.tolist() for t in ("one", "two", "three")
    ]
    assert [item["stored"] for item in answer["items"]] == [True, True, False]
    assert fakes.worker.calls[calls:] == [2]  # what is stored is not coded again


def test_published_and_stored_items_do_not_move(client: TestClient) -> None:
    found = problem(
        client.post("/v1/codes", json={"item_id": "i1", "text": {"title": "x"}}), 409, "already-published"
    )
    assert "i1" in found["detail"]
    client.post("/v1/codes", json={"item_id": "kept", "text": {"title": "first"}})
    both = {
        "items": [{"item_id": "fresh", "text": {"title": "a"}}, {"item_id": "kept", "text": {"title": "b"}}]
    }
    problem(client.post("/v1/codes", json=both), 409, "stored-with-other-content")
    assert client.get("/v1/items/kept").json()["facts"]["title"] == "first"
    problem(client.get("/v1/items/fresh"), 404, "no-such-item")


def test_a_form_and_json_say_the_same(client: TestClient) -> None:
    files = {"image": ("a.png", picture()), "audio": ("a.wav", sound())}
    by_form = client.post("/v1/codes", data={"item_id": "f1", "title": "red"}, files=files)
    encoded = {name: base64.b64encode(content).decode() for name, (_, content) in files.items()}
    by_json = client.post("/v1/codes", json={"item_id": "f1", "text": {"title": "red"}, **encoded})
    assert by_form.json() == by_json.json()  # the second one is known by its content
    assert by_form.json()["items"][0]["stored"]
    encoded["audio"] = base64.b64encode(sound(0.2)).decode()
    other = client.post("/v1/codes", json={"item_id": "f1", "text": {"title": "red"}, **encoded})
    problem(other, 409, "stored-with-other-content")


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({"item_id": 5, "text": {"title": "a"}}, "/item_id", "string"),
        ({"item_id": "", "text": {"title": "a"}}, "/item_id", "at least 1"),
        ({"item_id": "much too long", "text": {"title": "a"}}, "/item_id", "need at most 8"),
        ({"text": {"colour": "red"}}, "/text", "this service has title, description"),
        ({"text": {"title": "a" * 51}}, "/text", "need at most 50"),
        ({"text": {"title": " "}}, "", "give at least one"),
        ({"image": "no base64!"}, "/image", "not base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "", "not a picture"),
        ({"image": base64.b64encode(picture(101)).decode()}, "", "10,201 pixels, need at most 10,000"),
        ({"audio": base64.b64encode(b"no sound").decode()}, "", "not a readable sound"),
        ({"audio": base64.b64encode(sound(2.5)).decode()}, "", "2.5 seconds, need at most 2"),
        ({"image_path": "/etc/passwd"}, "/image_path", "not permitted"),
        ({"items": []}, "/items", "at least 1"),
        ({"items": [{"text": {"title": "a"}}, {"text": {"title": "bad"}}]}, "/items/1", "nothing to read"),
        ({"items": [{"item_id": "a", "text": {"title": "a"}}] * 2}, "/items/1/item_id", "twice"),
        ([1], "", "valid dictionary"),
    ],
)
def test_wrong_items_are_named(client: TestClient, body: Any, pointer: str, said: str) -> None:
    response = client.post("/v1/codes", json=body)
    kinds = {"invalid-request", "invalid-item", "item-not-codable"}
    kind = response.json()["type"].removeprefix("urn:qarm:problem:")
    assert kind in kinds
    (error,) = problem(response, 422, kind)["errors"]
    assert error["pointer"] == pointer
    assert said in error["detail"]


def test_paths_and_addresses_are_never_opened(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is text in a text field, and no picture where a picture should be."""
    (tmp_path / "a.png").write_bytes(picture())
    path = str(tmp_path / "a.png")[-50:]
    opened: list[str] = []
    monkeypatch.setattr("builtins.open", lambda name, *given, **more: opened.append(str(name)))
    text = client.post("/v1/codes", json={"text": {"title": path}}).json()["items"][0]
    assert text["rq"] == expected(path).rq.tolist()
    problem(client.post("/v1/codes", json={"image": f"file://{path}"}), 422, "invalid-request")
    problem(client.post("/v1/codes", data={"image": path}, files={"audio": sound()}), 422, "invalid-request")
    assert client.get("/v1/items/..%2f..%2fetc%2fpasswd").status_code == 404
    assert opened == []


@pytest.mark.parametrize(
    ("data", "files", "field", "said"),
    [
        ({"image": "text"}, {}, "image", "got a text, need a file"),
        ({}, {"title": b"file"}, "title", "got a file, need a text"),
        ({"colour": "red"}, {}, "colour", "unknown"),
        ({"title": ["a", "b"]}, {}, "title", "more than once"),
    ],
)
def test_wrong_forms_are_named(client: TestClient, data: Any, files: Any, field: str, said: str) -> None:
    response = client.post("/v1/codes", data=data, files=files or {"audio": sound()})
    error = problem(response, 422, "invalid-request")["errors"][0]
    assert error["field"] == field
    assert said in error["detail"]


def test_forms_that_are_none(client: TestClient) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary="):
        response = client.post("/v1/codes", content=b"--x\r\nnonsense", headers={"Content-Type": kind})
        assert response.status_code in (400, 422)
        assert response.headers["content-type"] == PROBLEM_TYPE
    many = {f"field{n}": "a" for n in range(5)}
    problem(client.post("/v1/codes", data=many, files={"image": picture()}), 400, None)


def test_bodies_that_are_no_json(client: TestClient) -> None:
    header = {"Content-Type": "application/json"}
    for body in (b"", b"{", b"\xff", b"[" * 20_000, b'{"item_id": "\\ud800"}', b"NaN"):
        problem(client.post("/v1/codes", content=body, headers=header), 400, "not-json")
    for kind in (None, "text/plain", "application/xml; charset=utf-8"):
        found = client.post("/v1/codes", content=b"{}", headers={"Content-Type": kind} if kind else {})
        problem(found, 415, None)
        assert found.headers["accept"] == "application/json, multipart/form-data"


def test_too_much_is_refused(client: TestClient, fakes: Fakes) -> None:
    calls = len(fakes.worker.calls)
    batch = {"items": [{"text": {"title": "a"}}] * 4}
    assert "at most 3" in problem(client.post("/v1/codes", json=batch), 422, "batch-too-large")["detail"]
    header = {"Content-Type": "application/json"}
    problem(client.post("/v1/codes", content=b"x" * 60_001, headers=header), 413, "body-too-large")
    chunks = (b"x" * 10_000 for _ in range(7))  # without a Content-Length
    problem(client.post("/v1/codes", content=chunks, headers=header), 413, "body-too-large")
    assert len(fakes.worker.calls) == calls


# ---- known items --------------------------------------------------------------------------------


def test_a_published_item(client: TestClient) -> None:
    found = client.get("/v1/items/i5?nearest=2").json()
    assert (found["rq"], found["vq"], found["code"]) == ([1, 1, 5], [1, 1], "1-1-5")
    assert (found["published"], found["version"], found["facts"]["title"]) == (True, 3, "Hat No. 5")
    assert {near["item_id"] for near in found["nearest"]} == {"i4", "i6"}  # its neighbours on the circle
    assert all(near["cosine"] == pytest.approx(np.cos(0.1), abs=1e-6) for near in found["nearest"])
    assert client.get("/v1/items/i5?nearest=0").json()["nearest"] == []
    assert len(client.get("/v1/items/i5?nearest=99").json()["nearest"]) == 4  # the limit
    problem(client.get("/v1/items/i99"), 404, "no-such-item")
    problem(client.get("/v1/items/i5?nearest=-1"), 422, "invalid-request")


def test_pages_under_a_prefix(client: TestClient) -> None:
    first = client.get("/v1/codes/2?limit=3").json()
    assert (first["prefix"], first["total"], first["items"]) == ([2], 4, ["i8", "i9", "i10"])
    assert client.get(f"/v1/codes/2?limit=3&offset={first['next']}").json()["items"] == ["i11"]
    assert client.get("/v1/codes/2-3-11").json()["items"] == ["i11"]
    assert client.get("/v1/codes/77").json()["total"] == 0
    problem(client.get("/v1/codes/1-2-3-4"), 422, "invalid-request")
    for wrong in ("x", "1-", "-1", "1--2", "9999999999"):
        problem(client.get(f"/v1/codes/{wrong}"), 422, "invalid-request")


def test_appended_items_follow_the_published_ones(client: TestClient) -> None:
    """i0 to i3 are under 0; new items whose first code is 0 follow them, page by page."""
    titles = [t for t in (f"t{n}" for n in range(200)) if expected(t).rq[0] == 0][:3]
    for number, title in enumerate(titles):
        client.post("/v1/codes", json={"item_id": f"z{number}", "text": {"title": title}})
    found, offset = [], 0
    while offset is not None:
        page = client.get(f"/v1/codes/0?limit=3&offset={offset}").json()
        found, offset = [*found, *page["items"]], page["next"]
    assert found[:4] == ["i0", "i1", "i2", "i3"]
    assert [item for item in found if item.startswith("z")] == ["z0", "z1", "z2"]
    assert len(found) == page["total"]


def test_search(client: TestClient) -> None:
    found = client.get("/v1/items", params={"query": "hAT no. 1", "limit": 2}).json()
    assert found == {
        "total": 3,
        "items": [{"item_id": "i1", "title": "Hat No. 1"}, {"item_id": "i10", "title": "Hat No. 10"}],
        "next": 2,
    }
    assert client.get("/v1/items?query=hat&offset=2&limit=1").json()["items"][0]["item_id"] == "i2"
    assert client.get("/v1/items?query=.").json()["total"] == 12  # no pattern: every title has a point
    assert client.get("/v1/items?query=zebra").json() == {"total": 0, "items": [], "next": None}
    assert len(client.get("/v1/items?limit=99").json()["items"]) == 5
    problem(client.get("/v1/items?limit=0"), 422, "invalid-request")


def test_scores(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"history": ["i1", "i2"], "candidates": ["i9", "i11"]}).json()
    assert answer["items"] == [
        {"item_id": "i9", "score": 7.0, "cold": False},
        {"item_id": "i11", "score": 9.0, "cold": True},  # published later: by its codes
    ]
    assert client.post("/v1/score", json={"candidates": ["i3"]}).json()["items"][0]["score"] == 3.0
    problem(client.post("/v1/score", json={"candidates": []}), 422, "invalid-request")
    problem(client.post("/v1/score", json={"candidates": ["i1"] * 5}), 422, "too-many-items")
    problem(client.post("/v1/score", data={"candidates": "i1"}), 415, None)


def test_an_item_that_was_coded_a_second_ago_is_scored(client: TestClient, fakes: Fakes) -> None:
    asked = {"history": ["kestrel", "i2"], "candidates": ["kestrel", "i3"]}
    unknown = problem(client.post("/v1/score", json=asked), 422, "unknown-items")
    assert (
        "kestrel are neither published nor stored for this bundle; code them with POST" in unknown["detail"]
    )
    client.post("/v1/codes", json={"item_id": "kestrel", "text": {"title": "Kestrel"}})
    found = client.post("/v1/score", json=asked).json()["items"]
    first = int(expected("Kestrel").rq[0])
    assert found[0] == {"item_id": "kestrel", "score": first - 2.0, "cold": True}
    fakes.service.bundles.current.bundle.scorer.why_not_new = "it reads vectors before alignment"
    late = problem(client.post("/v1/score", json=asked), 422, "unknown-items")
    assert "kestrel came after training: it reads vectors before alignment; leave them out" in late["detail"]


def test_histories_as_long_as_the_training_read_them(client: TestClient, fakes: Fakes) -> None:
    """The request's limit is 3 here; a ranker that searches 4 events by code gets them."""
    asked = {"candidates": ["i1"], "history": ["i1"] * 4}
    problem(client.post("/v1/score", json=asked), 422, "too-many-items")
    ranker = fakes.service.bundles.current.bundle.scorer.ranker
    ranker.shape, ranker.long_history = ranker.shape.model_copy(update={"cross": 2}), 4
    assert client.post("/v1/score", json=asked).status_code == 200
    problem(client.post("/v1/score", json={**asked, "history": ["i1"] * 5}), 422, "too-many-items")


def test_user_features_gaps_and_labels(client: TestClient, fakes: Fakes) -> None:
    def scored(**more: Any) -> dict[str, Any]:
        return client.post("/v1/score", json={"history": ["i1", "i2"], "candidates": ["i3"], **more}).json()

    def pointers(**more: Any) -> list[str]:
        return [error["pointer"] for error in scored(**more)["errors"]]

    assert scored()["unknown_user_features"] == ["age", "member"]
    assert scored(user={"age": 25, "member": True})["items"][0]["score"] == 201.0
    assert scored(user={"age": 25, "member": True})["unknown_user_features"] == []
    assert scored(user={"age": "26", "member": None})["unknown_user_features"] == ["age", "member"]
    assert scored(label="liked")["items"][0]["score"] == 1001.0
    assert pointers(user={"agee": "25"}, label="bought", gaps=[2, 1]) == ["/label", "/gaps", "/user/agee"]
    ranker = fakes.service.bundles.current.bundle.scorer.ranker
    ranker.shape = ranker.shape.model_copy(update={"time": True})
    assert scored(gaps=[20, 10])["items"][0]["score"] == 31.0
    assert scored(history=[])["items"][0]["score"] == 3.0
    for wrong in ({}, {"gaps": [1]}, {"gaps": [1, 2]}):
        assert pointers(**wrong) == ["/gaps"]
    assert pointers(gaps=[5, -1]) == ["/gaps/1"]
    read = client.get("/v1/ranker").json()
    assert (read["gaps"], read["labels"], read["variant"]) == (True, ["liked"], "id+rq+vq")
    assert read["user_features"][0] == {"name": "age", "values": ["18", "25"], "total": 2}


def test_no_ranker(client: TestClient, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes.service.bundles.current.bundle, "scorer", None)
    problem(client.post("/v1/score", json={"candidates": ["i1"]}), 404, "no-ranker")
    problem(client.get("/v1/ranker"), 404, "no-ranker")


# ---- the rest -----------------------------------------------------------------------------------


def test_nothing_there_and_not_so(client: TestClient) -> None:
    problem(client.get("/nothing"), 404, None)
    problem(client.get("/v1/items/"), 422, "invalid-request")
    refused = client.delete("/v1/score")
    problem(refused, 405, None)
    assert refused.headers["allow"] == "POST"


def test_what_nobody_foresaw_stays_inside(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    response = client.post("/v1/codes", json={"text": {"title": "bug"}})
    found = problem(response, 500, None)
    assert "secret" not in response.text
    assert found["instance"] in caplog.text
    assert "secret of the house" in caplog.text
    assert client.post("/v1/codes", json={"text": {"title": "fine"}}).status_code == 200


def test_health_and_figures(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.get("/v1/items/i1")
    client.get("/nothing/at/all")
    client.request("BREW", "/healthz")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [s for family in text_string_to_metric_families(response.text) for s in family.samples]
    requests = [s.labels for s in samples if s.name == "qarm_requests_total"]
    assert {"method": "GET", "route": "/v1/items/{item_id:path}", "status": "200"} in requests
    assert {"method": "GET", "route": "none", "status": "404"} in requests
    assert {label["method"] for label in requests} <= {"GET", "POST", "DELETE", "other"}
    values = {s.name: s.value for s in samples}
    assert values["qarm_bundle_items"] == 12
    assert values["qarm_codes_stored_total"] >= 1
    assert values["qarm_encoder_batch_items_count"] >= 1


def test_openapi_has_examples_that_work(client: TestClient) -> None:
    made = client.get("/openapi.json").json()
    shown = made["paths"]["/v1/codes"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert set(shown) == {"one", "several"}
    for example in shown.values():
        assert client.post("/v1/codes", json=example["value"]).status_code == 200
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                problems = [kind for kind in response.get("content", {}) if kind == PROBLEM_TYPE]
                assert bool(problems) == (int(status) >= 400), (path, method, status)


def test_the_token(tmp_path: Path) -> None:
    with client_of(Fakes(tmp_path, token=TOKEN)) as client:
        for header in (
            {},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
        ):
            for path in ("/v1/items/i1", "/metrics", "/v1/nothing"):
                refused = client.get(path, headers=header)
                problem(refused, 401, None)
                assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert "security" in client.get("/openapi.json").json()
        for scheme in ("Bearer", "bearer"):
            assert (
                client.get("/v1/items/i1", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
            )


def test_the_admin_needs_a_token(client: TestClient) -> None:
    problem(client.get("/v1/admin/bundles"), 403, "needs-token")
    problem(client.post("/v1/admin/bundle", json={"name": "one"}), 403, "needs-token")
    problem(client.post("/v1/admin/rollback"), 403, "needs-token")


def test_bodies_of_all_requests_together_have_a_limit(tmp_path: Path) -> None:
    with client_of(Fakes(tmp_path, limits=Limits(bodies=1000))) as client:
        header = {"Content-Type": "application/json"}
        refused = client.post("/v1/codes", content=b"x" * 1001, headers=header)
        problem(refused, 503, "busy")
        assert refused.headers["retry-after"] == "1"
        chunks = (b"x" * 300 for _ in range(4))
        problem(client.post("/v1/codes", content=chunks, headers=header), 503, "busy")
        assert client.post("/v1/codes", json={"text": {"title": "a"}}).status_code == 200  # given back
