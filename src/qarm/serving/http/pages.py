"""Pages for people: links at `/`, and a description of every route at `/docs`, which work offline."""

import json
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse

__all__ = ["page_routes"]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f3f3}pre{padding:.8rem;overflow:auto}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}"
    "h2{margin-top:2rem;font-size:1.1rem}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}"
    "code,pre{background:#262626}a{color:#8bf}}"
)
LINKS = (
    ("explorer/", "Explorer", "items by their codes: a page for people"),
    ("docs", "Routes", "what may be asked, with parameters and examples"),
    ("openapi.json", "OpenAPI", "the same for tools"),
    ("healthz", "Alive", "the process answers"),
    ("readyz", "Ready", "a bundle is loaded, the encoder runs, the store can be written"),
    ("metrics", "Figures", "for Prometheus; with a token where the service has one"),
)


def page_routes(openapi: Callable[[], Mapping[str, Any]]) -> APIRouter:
    """The pages `/` and `/docs`.

    Args:
        openapi: the app's OpenAPI schema.
    """
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    def index() -> HTMLResponse:
        """Links to what the service has."""
        rows = [
            f'<tr><td><a href="{address}">{escape(name)}</a></td><td>{escape(what)}</td></tr>'
            for address, name, what in LINKS
        ]
        return _page("qarm", f"<table>{''.join(rows)}</table>")

    @router.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """Every route with its parameters and examples."""
        parts = [
            _route(method, path, operation)
            for path, methods in openapi()["paths"].items()
            for method, operation in methods.items()
        ]
        return _page("qarm: routes", "".join(parts))

    return router


def _page(title: str, body: str) -> HTMLResponse:
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    )
    text = f"{head}<style>{STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
    return HTMLResponse(text, headers=HEADERS)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    lines.append(f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>")
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(_meaning(one))}</td></tr>"
            for one in parameters
        ]
        lines.append(f"<table>{''.join(rows)}</table>")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for example in content.get("examples", {}).values():
            shown = json.dumps(example["value"], indent=2, ensure_ascii=False)
            lines.append(f"<p>{escape(kind)}</p><pre>{escape(shown)}</pre>")
    statuses = [
        f"<tr><td><code>{status}</code></td><td>{escape(response.get('description', ''))}</td></tr>"
        for status, response in operation.get("responses", {}).items()
    ]
    lines.append(f"<table>{''.join(statuses)}</table>")
    return "".join(lines)


def _meaning(parameter: Mapping[str, Any]) -> str:
    schema = parameter.get("schema", {})
    default = f"; default {schema['default']}" if "default" in schema else ""
    return f"in {parameter['in']}: {parameter.get('description') or schema.get('title', '')}{default}"
