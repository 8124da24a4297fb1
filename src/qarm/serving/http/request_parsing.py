"""Request parsing: JSON and forms to checked values; no path and no address is opened."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from qarm.errors import shown
from qarm.serving.http.problems import Problem, pointer
from qarm.serving.http.schemas import ItemBatch, NewItem
from qarm.serving.limits import Limits

__all__ = ["read_items", "read_json_body"]

JSON, FORM = "application/json", "multipart/form-data"
WINDOW, STEPS, BACKSLASH = 2**16, 2_000, ord("\\")
Model = TypeVar("Model", bound=BaseModel)


async def read_json_body(request: Request, model: type[Model], *, tokens: int) -> Model:
    """The body as a model.

    Args:
        tokens: most strings, values and separators.

    Raises:
        Problem: 400, 415 or 422.
    """
    _media_type(request, [JSON])
    return _model(await _json(request, tokens), model)


async def read_items(request: Request, fields: Sequence[str], limits: Limits) -> list[NewItem]:
    """The items of a request, of JSON with one item or with `items`, or of a form with one.

    Args:
        fields: names of the text fields.

    Raises:
        Problem: 400, 415 or 422, with everything that is wrong.
    """
    if _media_type(request, [JSON, FORM]) == FORM:
        items, pointers = [await _form_item(request, fields, limits)], [""]
    else:
        content = await _json(request, limits.tokens)
        if isinstance(content, dict) and "items" in content:
            _check_batch(content["items"], limits)
            items = _model(content, ItemBatch).items
            pointers = [f"/items/{number}" for number in range(len(items))]
        else:
            items, pointers = [_model(content, NewItem)], [""]
    _check(items, pointers, fields, limits)
    return items


def _media_type(request: Request, known: Sequence[str]) -> str:
    """The body's type; parameters that would change how it is read are refused."""
    given = request.headers.getlist("content-type")
    kind, *parameters = given[0].split(";") if len(given) == 1 else [""]
    kind = kind.strip().lower()
    names = {name.strip().lower(): value.strip('" ').lower() for name, _, value in _pairs(parameters)}
    wrong = {*names} - {"charset", *(["boundary"] if kind == FORM else [])}
    if kind not in known or wrong or names.get("charset", "utf-8") not in ("utf-8", "utf8"):
        raise Problem(
            415,
            None,
            f"got Content-Type {', '.join(given)[:100]!r}, need {' or '.join(known)}, in UTF-8",
            headers={"Accept": ", ".join(known), "Connection": "close"},
        )
    return kind


def _pairs(parameters: Sequence[str]) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in parameters if part.strip()]


async def _json(request: Request, tokens: int) -> Any:
    body = await request.body()
    await _check_tokens(body, tokens)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, "not-json", f"the body is no JSON: {error}") from None


async def _check_tokens(body: bytes, most: int) -> None:
    """Refuse JSON whose parsing would take long, before it is parsed; other requests go on meanwhile.

    What stands between quotation marks costs little and is passed over; everything else is counted.

    Raises:
        Problem: 422, over `most` strings, values and separators.
    """
    position, tokens, steps, inside = 0, 0, 0, False
    while position < len(body):
        quote = body.find(b'"', position, position + WINDOW)
        end = min(position + WINDOW, len(body)) if quote < 0 else quote
        if not inside:
            tokens += sum(body.count(sign, position, end) for sign in (b"{", b"[", b",", b":"))
        if quote >= 0 and not (inside and _is_escaped(body, quote)):
            inside = not inside
            tokens += inside
        if tokens > most:
            detail = f"the body has over {most:,} values; send fewer items, or several requests"
            raise Problem(422, "too-many-values", detail)
        position = end + (quote >= 0)
        steps += 1
        if steps % STEPS == 0:
            await asyncio.sleep(0)


def _is_escaped(body: bytes, quote: int) -> bool:
    """Whether an odd number of backslashes stands before a quotation mark."""
    first = quote
    while first > 0 and body[first - 1] == BACKSLASH and quote - first < WINDOW:
        first -= 1
    return (quote - first) % 2 == 1


def _check_batch(items: object, limits: Limits) -> None:
    if isinstance(items, list) and len(items) > limits.batch:
        raise Problem(
            422,
            "batch-too-large",
            f"got {len(items):,} items, need at most {limits.batch:,}; send several requests",
        )


def _model(content: Any, model: type[Model]) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = [
            {"pointer": pointer(found["loc"]), "detail": found["msg"].removeprefix("Value error, ")}
            for found in error.errors(include_url=False, include_context=False, include_input=False)[:20]
        ]
        raise Problem(
            422, "invalid-request", "the body breaks rules; `errors` says where", errors=errors
        ) from None


class _Utf8Form(MultiPartParser):
    """Parts of a form; a text that is no UTF-8 is refused, which starlette would read as Latin-1."""

    def on_part_end(self) -> None:
        """Take a part."""
        part = self._current_part
        if part.file is None:
            kinds = [value for name, value in part.item_headers if name == b"content-type"]
            charsets = {_charset(kind) for kind in kinds} - {""}
            try:
                part.data.decode()
            except UnicodeDecodeError:
                charsets.add("unknown")
            if charsets - {"utf-8", "utf8", "us-ascii"}:
                raise MultiPartException(f"the text {part.field_name[:100]!r} is not in UTF-8; encode it so")
        super().on_part_end()


def _charset(kind: bytes) -> str:
    """The `charset` of a content type in small letters; empty where it has none."""
    parameters = kind.decode("latin-1").lower().split(";")[1:]
    found = [value for name, _, value in _pairs(parameters) if name.strip() == "charset"]
    return found[0].strip().strip('"') if found else ""


async def _form_item(request: Request, fields: Sequence[str], limits: Limits) -> NewItem:
    most = {"max_files": 2, "max_fields": len(fields) + 1, "max_part_size": 4 * limits.text}
    try:
        form = await _Utf8Form(request.headers, request.stream(), **most).parse()
    except MultiPartException as error:
        raise Problem(400, None, error.message) from None
    try:
        _check_form(form, fields)
        files = {name: await value.read() for name, value in form.items() if isinstance(value, UploadFile)}
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()
    item_id = texts.pop("item_id", None)
    return _model({"item_id": item_id or None, "text": texts, **files}, NewItem)


def _check_form(form: FormData, fields: Collection[str]) -> None:
    errors = []
    for name, value in form.multi_items():
        kind = "file" if isinstance(value, UploadFile) else "text"
        expected = "file" if name in ("image", "audio") and name not in fields else "text"
        if name not in (*fields, "item_id", "image", "audio"):
            errors.append(
                {"field": name, "detail": f"unknown; need item_id, {shown(fields)}, image or audio"}
            )
        elif kind != expected:
            errors.append({"field": name, "detail": f"got a {kind}, need a {expected}"})
        elif len(form.getlist(name)) > 1:
            errors.append({"field": name, "detail": "given more than once"})
    if errors:
        raise Problem(
            422, "invalid-request", "the form breaks rules; `errors` says where", errors=errors[:20]
        )


def _check(items: Sequence[NewItem], places: Sequence[str], fields: Sequence[str], limits: Limits) -> None:
    errors, seen = [], set()
    for item, place in zip(items, places, strict=True):
        errors += [
            {"pointer": f"{place}{where}", "detail": reason}
            for where, reason in _faults(item, fields, limits)
        ]
        if item.item_id is not None and item.item_id in seen:
            errors.append(
                {"pointer": f"{place}/item_id", "detail": "the same id stands twice in this request"}
            )
        seen.add(item.item_id)
    if errors:
        raise Problem(422, "invalid-item", "items break rules; `errors` says which", errors=errors[:20])


def _faults(item: NewItem, fields: Collection[str], limits: Limits) -> list[tuple[str, str]]:
    found = []
    unknown = [name for name in item.text if name not in fields]
    if unknown:
        found.append(
            ("/text", f"unknown fields {shown(unknown)}; this service has {shown(fields, first=12)}")
        )
    size = _size(item.text)
    if size > limits.text:
        found.append(("/text", f"{size:,} characters, need at most {limits.text:,}; shorten it"))
    if item.item_id is not None and len(item.item_id) > limits.item_id:
        found.append(("/item_id", f"{len(item.item_id):,} characters, need at most {limits.item_id:,}"))
    if item.item_id is not None and not item.item_id.isprintable():
        found.append(("/item_id", "line breaks or other control characters, which no address can hold"))
    some = any(text and text.strip() for text in item.text.values())
    if not some and not any((item.image, item.audio, item.attributes, item.vectors)):
        found.append(("", "no text, picture, sound, attribute or vector; give at least one"))
    return found


def _size(texts: Mapping[str, str | None]) -> int:
    return sum(len(text or "") for text in texts.values())
