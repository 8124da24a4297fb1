"""Request parsing: JSON and forms to checked values; no path and no address is opened."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from qarm.errors import shown
from qarm.serving.http.problems import Problem, pointer
from qarm.serving.http.schemas import ItemBatch, NewItem
from qarm.serving.limits import Limits

__all__ = ["read_items", "read_json_body"]

JSON, FORM = "application/json", "multipart/form-data"
Model = TypeVar("Model", bound=BaseModel)


async def read_json_body(request: Request, model: type[Model]) -> Model:
    """The body as a model.

    Raises:
        Problem: 400, 415 or 422.
    """
    _media_type(request, [JSON])
    return _model(await _json(request), model)


async def read_items(request: Request, fields: Sequence[str], limits: Limits) -> list[NewItem]:
    """The items of a request, of JSON with one item or with `items`, or of a form with one.

    Args:
        fields: names of the text fields.

    Raises:
        Problem: 400, 415 or 422, with everything that is wrong.
    """
    if _media_type(request, [JSON, FORM]) == FORM:
        items, places = [await _form_item(request, fields, limits)], [""]
    else:
        content = await _json(request)
        if isinstance(content, dict) and "items" in content:
            items = _model(content, ItemBatch).items
            places = [f"/items/{number}" for number in range(len(items))]
        else:
            items, places = [_model(content, NewItem)], [""]
    _check(items, places, fields, limits)
    return items


def _media_type(request: Request, known: Sequence[str]) -> str:
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in known:
        raise Problem(
            415,
            None,
            f"got Content-Type {found[:100]!r}, need {' or '.join(known)}",
            headers={"Accept": ", ".join(known)},
        )
    return found


async def _json(request: Request) -> Any:
    try:
        return from_json(await request.body(), allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, "not-json", f"the body is no JSON: {error}") from None


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


async def _form_item(request: Request, fields: Sequence[str], limits: Limits) -> NewItem:
    async with request.form(max_files=2, max_fields=len(fields) + 1, max_part_size=4 * limits.text) as form:
        _check_form(form, fields)
        files = {name: await value.read() for name, value in form.items() if isinstance(value, UploadFile)}
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
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
    if len(items) > limits.batch:
        raise Problem(
            422,
            "batch-too-large",
            f"got {len(items):,} items, need at most {limits.batch:,}; send several requests",
        )
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
    if not any(text and text.strip() for text in item.text.values()) and not item.image and not item.audio:
        found.append(("", "no text, picture or sound; give at least one"))
    return found


def _size(texts: Mapping[str, str | None]) -> int:
    return sum(len(text or "") for text in texts.values())
