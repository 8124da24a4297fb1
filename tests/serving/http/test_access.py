"""Who may ask: host names, pages of other origins, the token, public addresses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.serving.fakes import TOKEN, Fakes

from qarm.errors import InputError
from qarm.serving import app as server
from qarm.serving.app import build_app, serve

NEW = {"item_id": "n1", "text": {"title": "Kestrel"}}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(Fakes(tmp_path, hosts={"shop.example"}).app) as made:
        yield made


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::2]:80"]
)
def test_a_name_that_is_not_the_services_reads_nothing(client: TestClient, host: str) -> None:
    """DNS rebinding: the page's own name leads here."""
    for path in ("/v1/items/i1", "/healthz", "/explorer/", "/metrics"):
        refused = client.get(path, headers={"Host": host})
        assert (refused.status_code, refused.json()["type"]) == (421, "urn:qarm:problem:host-not-allowed")


@pytest.mark.parametrize("host", ["testserver:8000", "SHOP.example", "shop.example.:80"])
def test_its_own_names_with_any_port(client: TestClient, host: str) -> None:
    assert client.get("/v1/items/i1", headers={"Host": host}).status_code == 200


def test_a_page_of_another_origin_writes_nothing(client: TestClient, tmp_path: Path) -> None:
    form = {"item_id": "n1", "title": "Kestrel"}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver:9"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        for refused in (
            client.post(
                "/v1/codes", files={name: (None, value) for name, value in form.items()}, headers=headers
            ),
            client.post("/v1/codes", json=NEW, headers=headers),
            client.delete("/v1/items/n1", headers=headers),
        ):
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:qarm:problem:cross-origin")
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=punycode",
        "multipart/form-data; boundary=x; charset=punycode",
        "application/json, text/plain",
    ):
        assert client.post("/v1/codes", content=b"{}", headers={"Content-Type": kind}).status_code == 415
    assert client.get("/v1/items/n1").status_code == 404
    own = client.post("/v1/codes", json=NEW, headers={"Origin": "http://testserver"})
    assert own.status_code == 200
    assert client.get("/v1/items/n1", headers={"Origin": "https://evil.example"}).status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_with_a_token_any_name_may_lead_to_it(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    app = build_app(fakes.service, fakes.bundles / "one", token=TOKEN, hosts=None)
    with TestClient(app) as client:
        headers = {
            "Host": "shop.example",
            "Authorization": f"Bearer {TOKEN}",
            "Origin": "https://shop.example",
        }
        assert client.post("/v1/codes", json=NEW, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104 - refused
def test_a_public_address_needs_a_token_or_a_word(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="is reached from other machines, and there is no token"):
        serve(tmp_path, host=host)


def test_a_public_address_that_is_told_so(tmp_path: Path) -> None:
    for told in ({"token": TOKEN}, {"public_without_token": True}):
        with pytest.raises(InputError, match="no such folder; make one"):
            serve(tmp_path / "nowhere", host="0.0.0.0", **told)  # noqa: S104 - nothing is bound
    with pytest.raises(InputError, match="no such folder; make one"):
        serve(tmp_path / "nowhere", host="localhost")
    assert server._is_loopback("::1")
