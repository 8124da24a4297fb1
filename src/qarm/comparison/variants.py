"""Variants of the comparison, and the source of the codes of each."""

from dataclasses import dataclass
from typing import Literal, get_args

from qarm.config import features_of
from qarm.errors import InputError

__all__ = ["DEFAULT", "FAMILIES", "Source", "Variant", "family_of", "parse_variant"]

Source = Literal["aligned", "raw", "rqvae", "als", "placebo"]
WIDE = "id-wide"
FIXED = "fixed"
DEFAULT = (
    "id",
    WIDE,
    "id+raw",
    "id+frozen",
    "id+rq",
    "id+vq",
    "id+rq+vq",
    "id+rq+vq+cross",
    "id+rq+vq@raw",
    "id+rq+vq@rqvae",
    "id+rq+vq@als",
    "id+rq+vq@fixed",
    "id+rq+vq@placebo",
    "rq+vq",
    "frozen",
)

# families of variants that share a search, each with the variants to search for, the first that is compared
FAMILIES: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "id+vector": ("id+frozen", "id+raw"),
    "codes": ("id+rq+vq", "id+vq", "id+rq"),
    "codes+cross": ("id+rq+vq+cross", "id+rq+cross"),
    "id-free": ("rq+vq", "frozen", "raw"),
}


@dataclass(frozen=True)
class Variant:
    """One ranker of the comparison.

    name: as written; features: for `item_table`; source: of its codes; fixed: the codes' embeddings are not
    trained; wide: embeddings so wide that it has as many parameters as the largest variant.
    """

    name: str
    features: str
    source: Source = "aligned"
    fixed: bool = False
    wide: bool = False


def family_of(variant: Variant) -> str:
    """The family whose settings a variant takes."""
    features = set(features_of(variant.features))
    if "id" not in features:
        return "id-free"
    if "cross" in features:
        return "codes+cross"
    if features & {"rq", "vq"}:
        return "codes"
    return "id+vector" if features & {"raw", "frozen"} else "id"


def parse_variant(name: str) -> Variant:
    """The variant of a name such as `id+rq+vq@placebo`.

    Raises:
        InputError: unknown features, or an unknown source.
    """
    if name == WIDE:
        return Variant(name, "id", wide=True)
    features, at, source = name.partition("@")
    try:
        names = features_of(features)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not at:
        return Variant(name, features)
    if not {"rq", "vq"} & set(names):
        raise InputError(
            f"variant {name}: @{source} says where codes come from and there are none; add rq or vq"
        )
    if source == FIXED:
        return Variant(name, features, fixed=True)
    if source not in get_args(Source):
        raise InputError(
            f"variant {name}: got @{source}, need one of {', '.join((*get_args(Source), FIXED))}"
        )
    known: Source = source  # type: ignore[assignment]
    return Variant(name, features, source=known)
