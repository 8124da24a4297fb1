"""A new bundle is swapped in under load without a dropped request, and the old one comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from httpx2 import ASGITransport, AsyncClient
from tests.serving.fakes import TOKEN, Fakes, fake_bundle


def with_client(fakes: Fakes, work: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with fakes.app.router.lifespan_context(fakes.app):
            transport = ASGITransport(app=fakes.app)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
                return await work(client)

    return asyncio.run(run())


def fakes_of(folder: Path) -> Fakes:
    made = Fakes(folder, token=TOKEN)
    fake_bundle(made.bundles / "two")
    (made.bundles / "no bundle").mkdir()
    return made


def test_swaps_under_load_drop_nothing(tmp_path: Path) -> None:
    fakes = fakes_of(tmp_path)

    async def work(client: AsyncClient) -> None:
        answers: list[Any] = []
        stop = asyncio.Event()

        async def ask(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                item = {"item_id": f"n{number}-{count}", "text": {"title": f"{count}"}}
                answers.append(await client.post("/v1/codes", json=item))
                answers.append(await client.get("/v1/items/i3"))
                await asyncio.sleep(0)

        asking = [asyncio.create_task(ask(number)) for number in range(6)]
        for name in ("two", "one", "two"):
            before = len(answers)
            swapped = await client.post("/v1/admin/bundle", json={"name": name})
            assert (swapped.status_code, swapped.json()["current"]) == (200, name)
            while len(answers) < before + 30:
                await asyncio.sleep(0.005)
        stop.set()
        await asyncio.gather(*asking)
        assert {answer.status_code for answer in answers} == {200}
        versions = [answer.json()["bundle"] for answer in answers]
        assert set(versions) == {"version-of-one", "version-of-two"}

    with_client(fakes, work)
    made = [worker for workers in fakes.workers.values() for worker in workers]
    assert len(made) == 4
    assert all(worker.stopped for worker in made)


def test_what_has_begun_ends_with_the_old_bundle(tmp_path: Path) -> None:
    fakes = fakes_of(tmp_path)

    async def work(client: AsyncClient) -> None:
        fakes.worker.go.clear()
        slow = asyncio.create_task(client.post("/v1/codes", json={"item_id": "slow", "text": {"title": "a"}}))
        while not fakes.worker.begun.is_set():
            await asyncio.sleep(0.005)
        swapped = await client.post("/v1/admin/bundle", json={"name": "two"})
        assert swapped.json()["current"] == "two"
        quick = await client.post("/v1/codes", json={"item_id": "quick", "text": {"title": "a"}})
        assert quick.json()["bundle"] == "version-of-two"
        assert not slow.done()
        fakes.worker.go.set()
        assert (await slow).json()["bundle"] == "version-of-one"
        found = (await client.get("/v1/items/slow")).json()
        assert (found["bundle"], found["published"]) == ("version-of-one", False)  # kept, as it was made
        again = await client.post("/v1/codes", json={"item_id": "slow", "text": {"title": "a"}})
        assert again.json()["bundle"] == "version-of-two"
        assert (await client.get("/v1/items/slow")).json()["bundle"] == "version-of-two"

    with_client(fakes, work)


def test_the_old_one_comes_back(tmp_path: Path) -> None:
    fakes = fakes_of(tmp_path)

    async def work(client: AsyncClient) -> None:
        none = await client.post("/v1/admin/rollback")
        assert (none.status_code, none.json()["type"]) == (409, "urn:qarm:problem:no-earlier-bundle")
        listed = (await client.get("/v1/admin/bundles")).json()
        assert listed == {
            "current": "one",
            "bundle": "version-of-one",
            "previous": None,
            "names": ["one", "two"],
        }
        await client.post("/v1/admin/bundle", json={"name": "two"})
        for current, previous in (("one", "two"), ("two", "one")):
            back = await client.post("/v1/admin/rollback")
            assert back.status_code == 200
            assert (back.json()["current"], back.json()["previous"]) == (current, previous)

    with_client(fakes, work)


def test_a_name_is_looked_up_and_a_broken_bundle_changes_nothing(tmp_path: Path) -> None:
    fakes = fakes_of(tmp_path)
    broken = fake_bundle(fakes.bundles / "broken")

    async def work(client: AsyncClient) -> None:
        fake_bundle(tmp_path / "outside")
        for name in ("three", "../outside", str(tmp_path / "outside"), "no bundle", "..", "one/"):
            refused = await client.post("/v1/admin/bundle", json={"name": name})
            assert refused.json()["type"] == "urn:qarm:problem:no-such-bundle", name
        fakes.service.bundles._load = lambda folder: (_ for _ in ()).throw(OSError("no"))
        refused = await client.post("/v1/admin/bundle", json={"name": broken.name})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:qarm:problem:bundle-not-loaded")
        assert str(tmp_path) not in refused.text
        assert (await client.get("/v1/items/i1")).json()["bundle"] == "version-of-one"

    with_client(fakes, work)
