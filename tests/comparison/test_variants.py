"""Names of variants, read and refused."""

import pytest

from qarm.comparison.variants import DEFAULT, FAMILIES, family_of, parse_variant
from qarm.errors import InputError


def test_the_protocols_variants_are_read() -> None:
    found = {name: parse_variant(name) for name in DEFAULT}
    assert found["id+rq+vq@placebo"].source == "placebo"
    assert found["id+rq+vq@fixed"].fixed
    assert found["id+rq+vq@fixed"].source == "aligned"
    assert found["id-wide"].wide
    assert found["id-wide"].features == "id"


@pytest.mark.parametrize("name", ["id@raw", "id+rq@other", "id+colour", "cross", "id-wide+rq"])
def test_other_variants_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="variant"):
        parse_variant(name)


def test_every_variant_has_a_family() -> None:
    families = {name: family_of(parse_variant(name)) for name in DEFAULT}
    assert families["id-wide"] == families["id"] == "id"
    assert families["id+raw"] == families["id+frozen"] == "id+vector"
    assert families["id+rq+vq@placebo"] == families["id+rq"] == "codes"
    assert families["id+rq+vq+cross"] == "codes+cross"
    assert families["rq+vq"] == families["frozen"] == "id-free"
    assert all(family_of(parse_variant(name)) == family for family, row in FAMILIES.items() for name in row)
