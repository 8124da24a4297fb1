"""The report in a real browser, from its file."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_the_report_opens_offline_and_leads_to_the_explorer(page: Page, run: Path, screenshots: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run / "report" / "index.html").as_uri())
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(5)
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    expect(page.locator("#verdict .outcome").first).to_have_text(re.compile("^(pass|warn|fail)$"))
    expect(page.locator("#verdict .figures li")).to_have_count(4)
    for section in ("done", "results", "pairs", "alignment", "retrieval", "codes", "tree", "origin"):
        expect(page.locator(f"h2#{section}")).to_be_visible()
    pictures = page.locator(".tree img")
    assert pictures.count() > 4
    assert all(page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)"))
    manifest = json.loads((run / "codes" / "manifest.json").read_text())
    page.locator("#stage-codes summary").click()
    expect(page.locator("#stage-codes")).to_contain_text(manifest["outputs"]["codes.parquet"])
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=screenshots / f"report-{scheme}.png", full_page=True)
    page.locator(".tree a").first.click()
    expect(page.locator("#codes-title")).to_contain_text("Code ")
    page.get_by_role("link", name="Report").click()
    expect(page.locator("h1")).to_contain_text("qarm report")


def test_the_report_fits_a_phone(phone: Page, run: Path, screenshots: Path) -> None:
    phone.goto((run / "report" / "index.html").as_uri())
    expect(phone.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    phone.screenshot(path=screenshots / "phone-report.png", full_page=True)
