"""OpenAPI description beyond signatures: bodies, examples, problems, the token."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from qarm.serving.http.problems import PROBLEM_TYPE
from qarm.serving.http.schemas import ItemBatch, NewItem, ProblemDocument, RecommendRequest, ScoreRequest

__all__ = ["CODES_BODY", "RECOMMEND_BODY", "SCORE_BODY", "body_of", "describe", "problems"]

REFS = "#/components/schemas/{model}"
REASONS = {
    400: "The body cannot be read",
    401: "The token is missing or wrong",
    403: "The service has no token, which this needs; or a page of another origin asks",
    404: "There is no such thing",
    408: "The body took too long",
    409: "What is published or stored does not move",
    413: "The body is too large",
    415: "The body is of another type",
    421: "The request names another host than this service's",
    422: "The request breaks rules",
    500: "The service is at fault",
    503: "Too much at a time; see Retry-After",
    507: "The store's disk is full",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: the problem documents that it may answer."""
    schema = {"$ref": REFS.format(model=ProblemDocument.__name__)}
    content = {PROBLEM_TYPE: {"schema": schema}}
    return {
        status: {"description": REASONS[status], "content": content} for status in (401, *statuses, 421, 500)
    }


def body_of(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that reads JSON itself."""
    return {"requestBody": {"required": True, "content": {"application/json": _json(model, examples)}}}


def _json(model: type[BaseModel], examples: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: {"value": value} for name, value in examples.items()}
    return {"schema": {"$ref": REFS.format(model=model.__name__)}, "examples": named}


ONE = {"item_id": "n00001", "text": {"title": "Kestrel scarf No. 9"}}
SEVERAL = {"items": [ONE, {"text": {"title": "Quill blanket No. 4"}}]}
EITHER = {"anyOf": [{"$ref": REFS.format(model=model.__name__)} for model in (NewItem, ItemBatch)]}
FORM = {
    "type": "object",
    "description": "item_id, a text part for each text field, and the files `image` and `audio`",
    "properties": {
        "item_id": {"type": "string"},
        "image": {"type": "string", "contentMediaType": "application/octet-stream"},
        "audio": {"type": "string", "contentMediaType": "application/octet-stream"},
    },
    "additionalProperties": {"type": "string"},
}
CODES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": EITHER,
                "examples": {"one": {"value": ONE}, "several": {"value": SEVERAL}},
            },
            "multipart/form-data": {"schema": FORM},
        },
    }
}
SCORE_BODY = body_of(ScoreRequest, one={"history": ["i00001"], "candidates": ["i00002", "i00003"]})
RECOMMEND_BODY = body_of(
    RecommendRequest, user={"user": "u00001", "k": 5}, history={"history": ["i00001", "i00002"]}
)


def describe(app: FastAPI, models: tuple[type[BaseModel], ...], *, token: bool) -> None:
    """Give the app an `openapi()` that knows models which no signature names, and the token."""

    def openapi() -> dict[str, Any]:
        """The app's OpenAPI schema, made once."""
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            components = made.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for model in models:
                schema = model.model_json_schema(ref_template=REFS)
                schemas.update(schema.pop("$defs", {}))
                schemas.setdefault(model.__name__, schema)
            if token:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                made["security"] = [{"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
