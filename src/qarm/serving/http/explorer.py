"""Explorer of the service: its page, the code tree, cards of items, pictures and sounds by hash."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Protocol
from weakref import WeakKeyDictionary

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from starlette.responses import FileResponse, RedirectResponse, Response

from qarm.core.atomic_io import sha256_file
from qarm.data.codes import Codes
from qarm.data.previews import title_of
from qarm.quantizer.code_prefix import Prefix, parse_prefix, prefix_text
from qarm.quantizer.code_tree import CodeTree
from qarm.quantizer.evaluation.code_names import CodeNames
from qarm.recommender.retrieval.recommender import Recommender
from qarm.report.explorer import ASSETS, explorer_asset
from qarm.serving.http.openapi import problems
from qarm.serving.http.problems import Problem

__all__ = ["ExplorerBundle", "explorer_routes"]

PREFIX = r"^([0-9]{1,9}(-[0-9]{1,9})*)?$"
NODES, DEPTH, EXAMPLES, CARDS, BEFORE = 4000, 3, 6, 100, 5
NAMED = 200_000  # items of bundles whose codes are named: their words are counted at the first look
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MEDIA_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=31536000, immutable",
}
KINDS = {
    **{"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"},
    **{"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"},
}


class ExplorerBundle(Protocol):
    """What the explorer needs of a bundle."""

    folder: Path
    version: str
    codes: Codes
    recommender: Recommender | None

    @property
    def text_fields(self) -> list[str]:
        """Names of the items' text fields."""

    def __contains__(self, item_id: str) -> bool: ...

    def row(self, item_id: str) -> int:
        """Row of the item."""

    def facts(self, item_id: str) -> Mapping[str, str | None]:
        """Text, picture and sound of the item."""

    def nearest_raw(self, item_id: str) -> list[str]:
        """Items nearest to the item before alignment."""


class BundleSummary(BaseModel):
    """The bundle that the explorer shows: its version, that of its codebooks, items and levels.

    recommends: whether it has a retriever.
    """

    bundle: str
    version: int
    items: int
    levels: int
    recommends: bool


class Node(BaseModel):
    """A prefix; name: words that set its items apart; codes: of the next level; examples: item ids."""

    prefix: str
    name: str | None
    items: int
    codes: int
    examples: list[str]


class Nodes(BaseModel):
    """The prefix and the largest of those under it, three levels deep; empty where no item has it."""

    nodes: list[Node]


class Card(BaseModel):
    """An item in short; picture and sound: addresses below the page. Unknown items have no codes."""

    item: str
    title: str | None
    picture: str | None
    sound: str | None
    codes: list[int] | None
    suffix: int | None


class Cards(BaseModel):
    cards: list[Card]


def explorer_routes(current: Callable[[], ExplorerBundle]) -> APIRouter:
    """The page under `/explorer/`, its data under `/v1/explorer`.

    What lies under `/explorer/` asks for no token: the page holds no data, and who knows the SHA-256 of a
    picture has seen the item.

    Args:
        current: the bundle that answers now.
    """
    router, views = APIRouter(), _Views()
    router.include_router(_page_routes(current, views))
    router.include_router(_data_routes(current, views))
    return router


def _page_routes(current: Callable[[], ExplorerBundle], views: "_Views") -> APIRouter:
    router = APIRouter()

    @router.get("/explorer", include_in_schema=False)
    def beside() -> Response:
        return RedirectResponse("explorer/")

    @router.get("/explorer/", include_in_schema=False)
    def page() -> Response:
        """The explorer's page."""
        return _asset("index.html")

    @router.get("/explorer/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        """A script or style of the page."""
        return _asset(name)

    @router.get("/explorer/media/{name}", include_in_schema=False)
    def media(name: str) -> Response:
        """A picture or sound by the hash of its content."""
        return _media(views.of(current()).media, name)

    return router


def _data_routes(current: Callable[[], ExplorerBundle], views: "_Views") -> APIRouter:
    router = APIRouter()

    @router.get(
        "/v1/explorer",
        tags=["explorer"],
        summary="What there is",
        response_model=BundleSummary,
        responses=problems(503),
    )
    def about() -> BundleSummary:
        """Version and size of the bundle."""
        bundle = current()
        codes = bundle.codes
        return BundleSummary(
            bundle=bundle.version,
            version=codes.version,
            items=len(codes),
            levels=codes.rq.shape[1],
            recommends=bundle.recommender is not None,
        )

    @router.get(
        "/v1/explorer/tree",
        tags=["explorer"],
        summary="Code tree",
        response_model=Nodes,
        responses=problems(422, 503),
    )
    def nodes(prefix: Annotated[str, Query(pattern=PREFIX, max_length=200)] = "") -> Nodes:
        """Prefixes below a prefix, with sizes and examples."""
        codes = parse_prefix(prefix, levels=len(prefix))
        view = views.of(current())
        tree = view.tree
        if len(codes) > tree.levels:
            return Nodes(nodes=[])
        below = tree.nodes(codes, most=NODES, depth=DEPTH, examples=EXAMPLES)
        return Nodes(
            nodes=[
                Node(
                    prefix=prefix_text(n.prefix),
                    name=view.name(n.prefix),
                    items=n.items,
                    codes=n.codes,
                    examples=n.examples,
                )
                for n in below
            ]
        )

    @router.get(
        "/v1/explorer/cards",
        tags=["explorer"],
        summary="Items in short",
        response_model=Cards,
        responses=problems(422, 503),
    )
    def cards(item: Annotated[list[str], Query(min_length=1, max_length=CARDS)]) -> Cards:
        """Title, codes, picture and sound of items."""
        bundle = current()
        return Cards(cards=[_card(bundle, one) for one in item])

    @router.get(
        "/v1/explorer/before",
        tags=["explorer"],
        summary="Neighbours before alignment",
        response_model=Cards,
        responses=problems(422, 503),
    )
    def before(item: Annotated[str, Query(min_length=1, max_length=1000)]) -> Cards:
        """The items that were nearest before alignment."""
        bundle = current()
        nearest = bundle.nearest_raw(item)[:BEFORE] if item in bundle else []
        return Cards(cards=[_card(bundle, one) for one in nearest])

    return router


class _View:
    """What is made of a bundle once: its code tree, names of codes, and its media files by name."""

    def __init__(self, bundle: ExplorerBundle) -> None:
        self.tree = CodeTree(bundle.codes)
        few = len(self.tree) <= NAMED
        self._names = (
            CodeNames(self.tree, [_title(bundle, item) for item in self.tree.item_ids]) if few else None
        )
        folder = bundle.folder / "media"
        self.media = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}

    def name(self, prefix: Prefix) -> str | None:
        """Name of a prefix; None in bundles of very many items, whose words are not counted."""
        return None if self._names is None else self._names.of(prefix)


class _Views:
    def __init__(self) -> None:
        self._made: WeakKeyDictionary[ExplorerBundle, _View] = WeakKeyDictionary()

    def of(self, bundle: ExplorerBundle) -> _View:
        """View of a bundle, made once."""
        view = self._made.get(bundle)
        if view is None:
            view = self._made[bundle] = _View(bundle)
        return view


def _asset(name: str) -> Response:
    if name not in ASSETS:
        raise HTTPException(404, "no such page")
    return Response(explorer_asset(name), media_type=ASSETS[name], headers=PAGE_HEADERS)


def _media(known: Mapping[str, Path], name: str) -> Response:
    """A file whose name stands in the bundle's list; the request's own name is never opened."""
    path = known.get(name)
    if path is None:
        raise HTTPException(404, "no such picture or sound")
    if not _is_whole(path):
        raise Problem(503, "media-damaged", f"{name} is not what the bundle was made with; export it again")
    kind = KINDS.get(path.suffix[1:], "application/octet-stream")
    return FileResponse(path, media_type=kind, headers=MEDIA_HEADERS)


def _is_whole(path: Path) -> bool:
    """Whether a file still has the content that its name is the hash of, and is no link to another."""
    try:
        return not path.is_symlink() and sha256_file(path) == path.stem
    except OSError:
        return False


def _title(bundle: ExplorerBundle, item: str) -> str | None:
    facts = bundle.facts(item)
    texts = (facts.get(name) for name in bundle.text_fields)
    return title_of(next((text for text in texts if text), None))


def _card(bundle: ExplorerBundle, item: str) -> Card:
    if item not in bundle:
        return Card(item=item, title=None, picture=None, sound=None, codes=None, suffix=None)
    facts = bundle.facts(item)
    codes, row = bundle.codes, bundle.row(item)
    return Card(
        item=item,
        title=_title(bundle, item),
        picture=facts.get("image"),
        sound=facts.get("audio"),
        codes=codes.rq[row].tolist(),
        suffix=None if codes.suffix is None else int(codes.suffix[row]),
    )
