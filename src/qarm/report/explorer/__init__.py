"""Page of the explorer: its files for the service, or one file with its data for the report."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from qarm.schemas.explorer import ExplorerItems, Tree

__all__ = ["ASSETS", "explorer_asset", "explorer_page"]

ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "sources.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "sunburst.js": "text/javascript; charset=utf-8",
    "item.js": "text/javascript; charset=utf-8",
    "recommend.js": "text/javascript; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
}
SCRIPT = re.compile(r'<script src="([a-z]+\.js)" defer></script>\n')
STYLE = '<link rel="stylesheet" href="explorer.css">'


def explorer_asset(name: str) -> str:
    """One of the page's files, by its name in `ASSETS`."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def explorer_page(*, tree: Tree, items: ExplorerItems) -> str:
    """The page with its style, scripts and data in one file; it opens without a network.

    Its Content-Security-Policy allows these scripts alone, by hash, and `data:` pictures and sounds.

    Args:
        tree: content of `report/tree.json`; its cards are left out.
        items: content of `report/explorer.json`.
    """
    page, style = explorer_asset("index.html"), explorer_asset("explorer.css")
    script = "\n".join(explorer_asset(name) for name in SCRIPT.findall(page) if name != "service.js")
    content = tree.model_dump(mode="json", include={"items", "levels", "limits", "nodes"})
    data = json.dumps({"tree": content, "items": items.content()}, separators=(",", ":"), allow_nan=False)
    # the sequences that could end the element or open a comment
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    tail = f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n'
    before, after = SCRIPT.sub("", page).replace(STYLE, head).split("</body>")
    return f"{before}{tail}</body>{after}"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}'"
