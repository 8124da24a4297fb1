"""Hostile input, the same examples every time; what fuzzing has found so far stands here by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings

from hardening import fuzz_media, fuzz_tables
from hardening.fuzz import timely
from qarm.config import load_config
from qarm.core.tables import reader as tables
from qarm.data.interactions import read_log
from qarm.data.media_decoding import load_audio
from qarm.errors import ConfigError, InputError

few = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@few
@given(made=fuzz_tables.tables())
def test_tables(made: tuple[str, bytes, bytes], tmp_path: Path) -> None:
    timely(fuzz_tables.check_tables, tmp_path, made)


@few
@given(text=fuzz_tables.configs())
def test_configs(text: str, tmp_path: Path) -> None:
    timely(fuzz_tables.check_config, tmp_path, text)


@few
@given(content=fuzz_media.pictures)
def test_pictures(content: bytes) -> None:
    timely(fuzz_media.check_picture, content)


@few
@given(content=fuzz_media.sounds)
def test_sounds(content: bytes) -> None:
    timely(fuzz_media.check_sound, content)


# ---- found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", fuzz_tables.ODD, ids=lambda text: text[:12])
def test_yaml_that_is_hardly_yaml(text: str, tmp_path: Path) -> None:
    """Dates and numbers that are none raised ValueError, depth RecursionError, aliases filled memory."""
    for section in ("", "data:\n  root: ", "encoder: {text: "):
        (tmp_path / "c.yaml").write_text(section + text)
        assert timely(fuzz_tables.check_command, tmp_path, "c.yaml") in (0, 2)
    with pytest.raises(ConfigError, match="QARM_SEED"):
        load_config(environment={"QARM_SEED": "2026-99-99"})


def test_deep_and_long_configs_are_refused_by_the_rule(tmp_path: Path) -> None:
    for text, words in (
        ("[" * 21, "over 20 levels"),
        (fuzz_tables.BOMB, "20 aliases"),
        ("#" * 1_000_001, "characters"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config(tmp_path / "c.yaml", environment={})


def test_a_panic_of_polars_is_an_unreadable_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flipped bytes in a Parquet page: "capacity overflow", which is no Exception."""

    def panic(*arguments: Any, **settings: Any) -> None:
        raise pl.exceptions.PanicException("capacity overflow")

    monkeypatch.setattr(pl, "scan_parquet", panic)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not readable as parquet: capacity overflow"):
        tables.read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a\0b.parquet", "x" * 300 + ".parquet", "\ud800.parquet"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tables.read_table(tmp_path / name)


@pytest.mark.parametrize("value", ["\ud800", 10**30, -(10**30)])
def test_where_with_a_value_that_no_column_can_hold(value: Any, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "kind": ["x"]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="kind"):
        read_log(tmp_path / "log.parquet", where={"kind": value})


def wide(channels: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros((50, channels), dtype=np.float32), 8_000, format="WAV")
    return stream.getvalue()


def test_a_sound_of_a_thousand_channels_is_refused() -> None:
    """Samples x channels x 4 bytes are read at once: a small header could ask for gigabytes."""
    assert load_audio(wide(32), 8_000, seconds=0.01).shape == (80,)
    with pytest.raises(InputError, match="sound of 1,000 channels, need at most 32"):
        load_audio(wide(1_000), 8_000, seconds=0.01)
