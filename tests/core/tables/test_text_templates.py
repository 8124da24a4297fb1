"""Text templates: their columns, their texts, and what is none."""

import polars as pl
import pytest

from qarm.config import load_config
from qarm.core.tables.text_templates import text_columns
from qarm.data.catalog import read_catalog
from qarm.errors import ConfigError, InputError


def test_columns_are_written_into_one_text() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": [" Hat ", None, "Cap"],
            "year": [1999, None, None],
            "more": ["x"] * 3,
        }
    )
    found = read_catalog(frame, text=["{title} ({year})", "more"], image=None, audio=None)
    assert found.frame["text"].to_list() == ["Hat (1999)\nx", "x", "Cap ()\nx"]
    assert text_columns(["{title} {{{year}}}", "title", "more"]) == ["title", "year", "more"]


@pytest.mark.parametrize("template", ["{title", "{}", "{title!r}", "{year:.2f}", "{0}{", "{{title}}"])
def test_what_is_no_template_is_refused(template: str) -> None:
    frame = pl.DataFrame({"item_id": ["a"], "title": ["x"]})
    with pytest.raises(InputError, match="template"):
        read_catalog(frame, text=[template], image=None, audio=None)
    with pytest.raises(ConfigError, match="template"):
        load_config(flags={"data.items.text": f"['{template}']"}, environment={})


def test_a_column_that_is_not_there_is_named() -> None:
    frame = pl.DataFrame({"item_id": ["a"], "title": ["x"]})
    with pytest.raises(InputError, match="no column 'brand'"):
        read_catalog(frame, text=["{title} {brand}"], image=None, audio=None)
