"""The explorer in a real browser: on the real server, and from a file without any."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from qarm.data.codes import Codes

pytestmark = pytest.mark.browser


@pytest.fixture(params=["served", "file"])
def address(request: pytest.FixtureRequest) -> str:
    """Of the explorer, from both of its sources."""
    if request.param == "served":
        return f"{request.getfixturevalue('service')}/explorer/"
    return (request.getfixturevalue("run") / "report" / "explorer.html").as_uri()


def opened(page: Page, address: str) -> None:
    page.goto(address)
    ready(page)


def ready(page: Page) -> None:
    """Wait until the page shows what its address says."""
    waited(page, "document.body.dataset.ready === location.hash")


def waited(page: Page, expression: str) -> None:
    """Until it is true; the page's policy forbids Playwright's own way, which is `eval`."""
    until = time.monotonic() + 150
    while not page.evaluate(expression):
        assert time.monotonic() < until, expression
        page.wait_for_timeout(20)


def searched(page: Page, text: str) -> Locator:
    page.get_by_role("searchbox", name="Search items").fill(text)
    cards = page.locator("#found-cards .card")
    expect(cards.first).to_contain_text(text)
    ready(page)
    return cards


def plays(page: Page) -> bool:
    """Whether the item's sound moves on when it is started."""
    sound = page.locator("#item audio")
    expect(sound).to_be_visible()
    sound.evaluate("sound => sound.play()")
    waited(page, "document.querySelector('#item audio').currentTime > 0.05")
    return bool(sound.evaluate("sound => sound.error === null && sound.duration > 0.3"))


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def code_title(prefix: object) -> re.Pattern[str]:
    """The prefix and, where it has one, its name in brackets."""
    return re.compile(rf"^Code {prefix}( \([^()]+\))?$")


def test_search_an_item_follow_its_code_and_play_its_sound(
    page: Page, address: str, run: Path, screenshots: Path
) -> None:
    opened(page, address)
    expect(page.get_by_role("heading", name="All codes")).to_be_visible()
    codes = Codes.read(run / "codes" / "codes.parquet")
    widest = len(set(codes.rq[:, 0].tolist()))
    expect(page.locator("#codes-size")).to_have_text(f"60 items, {widest} codes at level 1")
    assert any(" (" in text for text in page.locator("#branches a").all_inner_texts())  # some have names
    cards = searched(page, "No. 1")
    title = cards.first.locator(".title").inner_text()
    cards.first.click()
    item = page.locator("#item")
    expect(item.get_by_role("heading", name=title)).to_be_focused()
    ready(page)
    own = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('item')")
    rq = codes.rq[codes.item_ids.index(own)].tolist()
    steps = item.locator(".path a")
    assert steps.locator("b").all_inner_texts() == [str(code) for code in rq]
    expect(item.locator(".large img")).to_have_js_property("complete", True)
    assert item.locator(".large img").evaluate("image => image.naturalWidth") > 0
    for side in ("Before", "After"):
        expect(item.get_by_role("region", name=side).locator(".card")).to_have_count(5)
    expect(page.locator(".ring.on-path")).to_have_count(3)
    assert plays(page)
    page.screenshot(path=screenshots / f"item-{page.url.split(':')[0]}.png", full_page=True)

    steps.first.click()  # down the tree by its code
    expect(page.locator("#codes-title")).to_have_text(code_title(rq[0]))
    ready(page)
    same = sum(int(row[0]) == rq[0] for row in codes.rq)
    expect(page.locator("#codes-size")).to_contain_text(f"{same} item")
    expect(page.locator("#examples .card")).to_have_count(min(same, 12))
    assert all(text.startswith(f"{rq[0]}-") for text in page.locator("#examples .codes").all_inner_texts())
    page.reload()  # the address says it all
    ready(page)
    expect(page.locator("#codes-title")).to_have_text(code_title(rq[0]))
    expect(item.get_by_role("heading", name=title)).to_be_visible()
    page.get_by_role("navigation", name="Path of codes").get_by_role("link", name="All codes").click()
    expect(page.locator("#codes-title")).to_have_text("All codes")


def test_the_keys_alone_reach_everything(page: Page, address: str) -> None:
    opened(page, address)
    keys = page.keyboard
    tree = page.get_by_role("tree", name="Codes")
    assert tree.get_by_role("treeitem").count() > 4
    first = page.locator('[role="treeitem"][tabindex="0"]')
    expect(first).to_have_count(1)  # one stop for the whole tree
    for _ in range(60):
        keys.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "treeitem":
            break
    focused = "document.activeElement.dataset.prefix"
    start = page.evaluate(focused)
    assert "-" not in start
    assert page.evaluate("getComputedStyle(document.activeElement).strokeWidth") == "5px"  # it shows
    keys.press("ArrowRight")
    after = page.evaluate(focused)
    assert after != start
    keys.press("ArrowLeft")
    assert page.evaluate(focused) == start
    keys.press("ArrowDown")
    assert page.evaluate(focused).startswith(f"{start}-")
    expect(page.locator("#segment")).to_contain_text(f"Code {start}-")
    keys.press("ArrowUp")
    assert page.evaluate(focused) == start
    keys.press("End")
    assert page.evaluate(focused) != start
    keys.press("Home")
    keys.press("Enter")
    expect(page.locator("#codes-title")).to_have_text(code_title(start))
    ready(page)
    assert page.evaluate(focused).startswith(f"{start}-")  # and on from there
    keys.press("Backspace")
    expect(page.locator("#codes-title")).to_have_text("All codes")
    ready(page)
    expect(page.locator('[role="treeitem"]:focus')).to_have_count(1)

    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        keys.press("Tab")
        if page.evaluate("document.activeElement.id") == "query":
            break
    keys.type("No. 2")
    keys.press("Enter")
    expect(page.locator("#found-title")).to_be_focused()
    keys.press("Tab")
    expect(page.locator("#found-cards .card").first).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#item-title")).to_be_focused()


def test_what_an_item_says_of_itself_stays_text(page: Page, address: str, hostile: str) -> None:
    opened(page, address)
    cards = searched(page, "onerror")
    expect(cards).to_have_count(1)
    cards.first.click()
    expect(page.locator("#item-title")).to_have_text(hostile)
    ready(page)
    expect(page.locator("#item .text")).to_contain_text(f"</script>{hostile}")
    expect(page.locator("#item .large .blank")).to_have_count(1)  # it has no picture
    assert page.locator("[onerror]").count() == 0
    assert page.title() == f"{hostile} - qarm explorer"


def test_a_phone_shows_it_all_without_scrolling_sideways(
    phone: Page, address: str, screenshots: Path
) -> None:
    opened(phone, address)
    assert fits(phone)
    for scheme in ("light", "dark"):
        phone.emulate_media(color_scheme=scheme)
        searched(phone, "No. 1").first.click()
        expect(phone.locator("#item .path a")).to_have_count(3)
        ready(phone)
        assert fits(phone)
        phone.screenshot(path=screenshots / f"phone-{scheme}-{phone.url.split(':')[0]}.png", full_page=True)
        phone.goto(address)


def test_an_address_of_nothing_is_answered_calmly(page: Page, run: Path) -> None:
    opened(page, (run / "report" / "explorer.html").as_uri() + "#item=nobody&code=99-99")
    expect(page.locator("#item-title")).to_have_text("No item nobody")
    expect(page.locator("#codes-size")).to_have_text("No item has this code.")
    opened(page, (run / "report" / "explorer.html").as_uri() + "#code=<img>&item=")
    expect(page.locator("#codes-title")).to_have_text("All codes")
