"""Words for the keys of JSON."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from qarm.report.labels import label
from qarm.schemas.base import Check
from qarm.schemas.codes import CodeQuality
from qarm.schemas.pairs import PairQuality


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sources.item2item.lift.matched_lift", "Swing, lift, lift over pairs as popular"),
        ("raw_hit_rate@50", "hit rate at 50, raw"),
        ("recall@10 sequential-knn", "recall at 10 sequential-knn"),
        ("rejected.user2item.cap", "rejected, User2Item, beyond the most rows per item"),
        ("id+rq", "id+rq"),
    ],
)
def test_keys_as_words(key: str, words: str) -> None:
    assert label(key) == words


def keys(schema: type[BaseModel]) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        yield name
        for below in inner(field.annotation):
            yield from (f"{name}.{key}" for key in keys(below))


def inner(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, UnionType) and not get_args(annotation):
        yield from [annotation] if issubclass(annotation, BaseModel) else []
    for part in get_args(annotation):
        yield from inner(part)


@pytest.mark.parametrize("schema", [Check, CodeQuality, PairQuality])
def test_no_label_of_a_page_is_a_key(schema: type[BaseModel]) -> None:
    found = {key: label(key) for key in keys(schema)}
    assert len(found) > 5
    assert [words for words in found.values() if re.search(r"_|\.|\d[a-z]|[a-z]\d", words)] == []
