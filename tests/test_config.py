"""Config files, flags, variables and their faults."""

from pathlib import Path

import pytest

from qarm.config import Config, load_config, saved_config
from qarm.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert load_config(path, environment={}).quantizer.nearest == 25


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("quantizer: {levels: 2, width: 8, nearest: 9}\n")
    environment = {"QARM_QUANTIZER__LEVELS": "4", "QARM_QUANTIZER__WIDTH": "16", "HOME": "x"}
    config = load_config(path, flags={"quantizer.levels": "6"}, environment=environment)
    quantizer = config.quantizer
    assert (quantizer.levels, quantizer.width, quantizer.nearest) == (6, 16, 9)
    assert quantizer.iterations == Config().quantizer.iterations


def test_flag_values_are_yaml() -> None:
    config = load_config(flags={"ranker.seeds": "[3, 4]", "data.items.audio": "null"}, environment={})
    assert config.ranker.seeds == [3, 4]
    assert config.data.items.audio is None


def test_all_problems_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("quantizer: {widht: 8, levels: 0}\nsplitt: {}\nsplit: {test: 0.9, valid: 0.2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "quantizer.widht; did you mean quantizer.width?" in text
    assert "splitt; did you mean split?" in text
    assert "quantizer.levels = 0" in text
    assert "test + valid = 1.1, need less than 1" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", "not YAML"),
        ("- 1\n", "got list"),
        ("data: 3\n", "data = 3"),
        ("seed: 1\ndata: {}\nseed: 2\n", "key seed is in line 1 and in line 3; remove one of them"),
        ("data:\n  items:\n    id: a\n    'id': b\n", "key id is in line 3 and in line 4"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="c.yaml") as caught:
        load_config(path, environment={})
    assert expected in str(caught.value)


def test_missing_file_and_misplaced_flags(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml", environment={})
    with pytest.raises(ConfigError, match="seed is a value, not a section"):
        load_config(flags={"seed": "1", "seed.deep": "2"}, environment={})


def test_one_width_per_level() -> None:
    with pytest.raises(ConfigError, match="width has 2 entries, need levels=3"):
        load_config(flags={"quantizer.width": "[8, 8]"}, environment={})


def test_tables_resolve_against_root() -> None:
    config = load_config(flags={"data.root": "shop"}, environment={})
    assert config.items_path == Path("shop/items.parquet")
    assert config.interactions_path == Path("shop/interactions.parquet")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ranker.seeds", "[0, 0]"),
        ("ranker.seeds", "[-1]"),
        ("ranker.variants", "[id, id]"),
        ("ranker.variants", "[]"),
        ("ranker.id_dropout", "0"),
        ("seed", "-1"),
    ],
)
def test_settings_that_would_fail_later_fail_here(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key.split(".")[-1]):
        load_config(flags={key: value}, environment={})


def test_a_merged_mapping_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("split: &s {test: 0.3}\ndata: {}\nranker: {seeds: [1]}\n")
    assert load_config(path, environment={}).split.test == 0.3
    path.write_text("split: {<<: {test: 0.3, valid: 0.2}, test: 0.1}\n")
    split = load_config(path, environment={}).split
    assert (split.test, split.valid) == (0.1, 0.2)


def test_conditions_and_label_rules(tmp_path: Path) -> None:
    """Saved as they were written; one problem for a wrong one; what nobody set is not in a manifest."""
    where = "{stars: [4, 5], country: {not: [DE]}, price: {at_least: 1}, day: {at_most: 2024-01-31}}"
    flags = {"data.interactions.where": where, "data.interactions.label": "{column: stars, at_least: 4}"}
    config = load_config(flags=flags, environment={})
    saved = config.model_dump(mode="json")
    interactions = saved["data"]["interactions"]
    assert interactions["where"] == {
        "stars": [4, 5],
        "country": {"not": ["DE"]},
        "price": {"at_least": 1},
        "day": {"at_most": "2024-01-31"},
    }
    assert interactions["label"] == {"column": "stars", "at_least": 4}
    assert "time_format" not in interactions
    assert saved_config(saved) == config
    for value in ("{least: 4}", "{}", "[]", "null", "[[1]]", "{at_least: [1]}"):
        with pytest.raises(ConfigError) as caught:
            load_config(flags={"data.interactions.where": f"{{stars: {value}}}"}, environment={})
        assert len(caught.value.problems) == 1
        assert "need a value, a list of values, or bounds: {at_least: 4}" in str(caught.value)
    with pytest.raises(ConfigError, match="need a column of 1 and 0, or a rule") as caught:
        load_config(flags={"data.interactions.label": "{column: stars}"}, environment={})
    assert len(caught.value.problems) == 1
