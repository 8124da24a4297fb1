"""Settings of a run against given ones: every difference with both values, and nothing else."""

from pathlib import Path

import pytest

from qarm.config import Config, load_config
from qarm.core.run_folder import stage_folder
from qarm.data.run_inputs import Run
from qarm.data.saved_settings import check_settings, saved_settings
from qarm.errors import InputError

SECTIONS = {
    "pairs": ("seed", "data", "split", "pairs"),
    "encoder": ("seed", "data", "split", "encoder"),
    "codes": ("seed", "data", "split", "quantizer"),
}


def config(**flags: str) -> Config:
    return load_config(flags={key.replace("__", "."): value for key, value in flags.items()}, environment={})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = Run(config(data__interactions__where="{stars: 5}", quantizer__width="[8, 8, 4]"), tmp_path)
    for folder, sections in SECTIONS.items():
        with stage_folder(tmp_path, folder, inputs={}, config=made.settings(sections)):
            pass
    return tmp_path


def test_what_the_codes_depend_on(run: Path) -> None:
    assert set(saved_settings(run)) == {"seed", "data", "split", "pairs", "encoder", "quantizer"}


def test_every_difference_is_named_with_both_values(run: Path) -> None:
    with pytest.raises(InputError) as raised:
        check_settings(run, config(pairs__swing__alpha="2", seed="3"), task="--append")
    assert str(raised.value).splitlines() == [
        f"{run} was made with other settings, and --append goes on with those of the run:",
        "  data.interactions.where.stars: the run has 5, given nothing",
        "  pairs.swing.alpha: the run has 1.0, given 2.0",
        "  quantizer.width: the run has [8, 8, 4], given auto",
        "  seed: the run has 0, given 3",
        f"leave these out (--out {run} alone is enough), or make new codes without --append",
    ]


def test_equal_settings_pass_and_so_do_folders_and_what_only_the_ranker_reads(run: Path) -> None:
    same = {"data__interactions__where": "{stars: 5}", "quantizer__width": "[8, 8, 4]"}
    check_settings(run, config(**same), task="--refit")
    other = {"data__root": "elsewhere", "encoder__cache": "c", "ranker__dim": "4", "compare__search": "1"}
    check_settings(run, config(**same, **other), task="--refit")
    labels = {"data__interactions__labels": "{like: liked}", "data__users__features": "[age]"}
    check_settings(run, config(**same, **labels), task="--refit")


def test_without_a_config_only_the_flags_count(run: Path) -> None:
    check_settings(run, config(pairs__window="50"), only=["pairs.window"], task="--append")
    with pytest.raises(InputError, match=r"pairs\.window: the run has 50, given 7\nleave"):
        check_settings(run, config(pairs__window="7"), only=["pairs.window"], task="--append")
    given = {"data__interactions__where": "{stars: 4, country: DE}"}
    with pytest.raises(InputError, match=r"where\.country: the run has nothing, given DE\n.*stars: the run"):
        check_settings(run, config(**given), only=["data.interactions.where"], task="--append")
