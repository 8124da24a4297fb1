"""Successive halving on a trial whose best setting is known, and the grids of the families."""

import pytest

from qarm.comparison.successive_halving import apply_setting, grid_of, sample_settings, search_settings
from qarm.config import RankerConfig

GRID = {"lr": (0.002, 0.005, 0.01), "dropout": (0.1, 0.3, 0.5), "dim": (16, 32)}


def test_halving_keeps_the_best_third_and_counts_what_it_trained() -> None:
    settings = RankerConfig(epochs=20)
    asked: list[tuple[float, float, int]] = []

    def trial(tried: RankerConfig) -> list[tuple[float, int]]:
        asked.append((tried.lr, tried.dropout, tried.epochs))
        return [(1 - tried.lr - tried.dropout, tried.epochs), (1 - tried.lr, 1)]

    chosen, found = search_settings(settings, 9, trial, seed=0, grid=GRID, first=6)
    tried = sample_settings(settings, GRID, 9, seed=0)
    best = min(tried, key=lambda setting: 2 * setting["lr"] + setting["dropout"])
    assert [len(rungs) for rungs in found.rounds] == [9, 3]
    assert {epochs for *_, epochs in asked[:9]} == {6}
    assert {epochs for *_, epochs in asked[9:]} == {20}
    assert found.variant_epochs == 9 * (6 + 1) + 3 * (20 + 1)
    assert (chosen.lr, chosen.dropout, chosen.epochs) == (best["lr"], best["dropout"], 20)
    on_edge = {name for name in GRID if best[name] in (min(GRID[name]), max(GRID[name]))}
    assert set(found.edges) == on_edge


def test_the_given_settings_are_tried_first_and_none_twice() -> None:
    found = sample_settings(RankerConfig(lr=0.7, dim=8), GRID, 1000, seed=3)
    assert found[0] == {"lr": 0.7, "dropout": 0.3, "dim": 8}
    assert len({tuple(setting.values()) for setting in found}) == len(found) == 1 + 3 * 3 * 2


def test_a_family_is_searched_for_what_it_reads() -> None:
    assert {"id_decay", "id_dropout"} <= grid_of("id").keys()
    assert "code_decay" not in grid_of("id+vector")
    assert {"id_decay", "code_decay", "bias_decay"} <= grid_of("codes+cross").keys()
    assert not {"id_decay", "id_dropout"} & grid_of("id-free").keys()
    assert (min(grid_of("id")["id_decay"]), max(grid_of("id")["id_decay"])) == (0.01, 10.0)
    assert (min(grid_of("codes")["lr"]), max(grid_of("codes")["lr"])) == (0.001, 0.02)
    assert "id_decay" not in grid_of("codes", edition=1)


def test_a_decay_that_is_not_given_starts_from_weight_decay() -> None:
    first = sample_settings(RankerConfig(weight_decay=0.4), grid_of("codes"), 1, seed=0)[0]
    assert (first["id_decay"], first["code_decay"]) == (0.4, 0.4)
    assert apply_setting(RankerConfig(), {"id_decay": 3, "dim": 8}).id_decay == 3.0
    with pytest.raises(ValueError, match="dim"):
        apply_setting(RankerConfig(), {"dim": -1})
