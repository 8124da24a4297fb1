"""Recommendations in a real browser: a user, a history built by clicks, and a page without a service."""

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from qarm.recommender.retrieval.recommender import Recommender

pytestmark = pytest.mark.browser


def opened(page: Page, address: str) -> None:
    page.goto(address)
    ready(page)


def ready(page: Page) -> None:
    """Wait until the page shows what its address says."""
    until = time.monotonic() + 150
    while not page.evaluate("document.body.dataset.ready === location.hash"):
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def shown(page: Page) -> list[str]:
    """Items of the list, as their links name them."""
    ready(page)
    links = page.locator("#recommended a.card")
    return links.evaluate_all("all => all.map(a => new URLSearchParams(a.hash.slice(1)).get('item'))")


def ids(recommender: Recommender, **asked: object) -> list[str]:
    [found] = recommender.recommend(**asked)
    return [item.item_id for item in found.items]


def test_a_user_then_a_history_by_clicks(page: Page, service: str, run: Path, screenshots: Path) -> None:
    recommender = Recommender.from_run(run)
    user = next(iter(recommender.users))
    opened(page, f"{service}/explorer/")
    assert shown(page) == []
    page.get_by_label("User", exact=True).fill(user)
    page.get_by_role("button", name="Show the list").click()
    expect(page.locator("#recommended .card")).to_have_count(10)
    assert shown(page) == ids(recommender, users=user)
    expect(page.locator("#recommend-note")).to_have_text(f"For user {user}")

    history: list[str] = []
    for clicked in (0, 1):
        before = shown(page)
        page.locator("#examples .card").nth(clicked).click()
        ready(page)
        history.append(page.evaluate("new URLSearchParams(location.hash.slice(1)).get('item')"))
        page.get_by_role("button", name="Add to the history").click()
        expect(page.locator("#history .card")).to_have_count(clicked + 1)
        found = shown(page)
        assert found == ids(recommender, histories=[history])
        assert found != before  # the list has changed
        assert not set(history) & set(found)
    expect(page.locator("#recommend-note")).to_have_text("After this history")
    page.screenshot(path=screenshots / "recommendations.png", full_page=True)
    page.reload()  # the address says it all
    assert shown(page) == ids(recommender, histories=[history])
    page.locator("#history button").first.click()
    expect(page.locator("#history .card")).to_have_count(1)
    assert shown(page) == ids(recommender, histories=[history[1:]])
    page.get_by_role("button", name="Clear the history").click()
    expect(page.locator("#recommended .card")).to_have_count(0)


def test_unknown_users_are_told_and_stay_text(page: Page, service: str, hostile: str) -> None:
    opened(page, f"{service}/explorer/")
    page.get_by_label("User", exact=True).fill(hostile)
    page.get_by_role("button", name="Show the list").click()
    expect(page.locator("#recommend-note")).to_have_text(
        f"For user {hostile}; unknown user: popular items of late"
    )
    assert page.locator("[onerror]").count() == 0


def test_without_a_service_the_page_says_the_command(page: Page, run: Path) -> None:
    opened(page, (run / "report" / "explorer.html").as_uri())
    expect(page.locator("#recommend-elsewhere")).to_contain_text("qarm serve")
    page.locator("#examples .card").first.click()
    ready(page)
    item = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('item')")
    page.get_by_role("button", name="Add to the history").click()
    expect(page.locator("#recommend-command")).to_have_text(
        f"qarm recommend --run RUN --history {item} -k 10"
    )
