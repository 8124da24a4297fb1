"""Successive halving on a trial whose best setting is known."""

from qarm.comparison.successive_halving import sample_settings, search_settings
from qarm.config import RankerConfig


def test_halving_keeps_the_best_third_and_counts_what_it_trained() -> None:
    settings = RankerConfig(epochs=20)
    asked: list[tuple[float, float, int]] = []

    def trial(tried: RankerConfig) -> list[tuple[float, int]]:
        asked.append((tried.lr, tried.dropout, tried.epochs))
        return [(1 - tried.lr - tried.dropout, tried.epochs), (1 - tried.lr, 1)]

    chosen, found = search_settings(settings, 9, trial, seed=0)
    tried = sample_settings(settings, 9, seed=0)
    best = min(tried, key=lambda setting: 2 * setting["lr"] + setting["dropout"])
    assert [len(rungs) for rungs in found.rounds] == [9, 3]
    assert {epochs for *_, epochs in asked[:9]} == {2}
    assert {epochs for *_, epochs in asked[9:]} == {20}
    assert found.variant_epochs == 9 * (2 + 1) + 3 * (20 + 1)
    assert (chosen.lr, chosen.dropout, chosen.epochs) == (best["lr"], best["dropout"], 20)


def test_the_given_settings_are_tried_first_and_none_twice() -> None:
    found = sample_settings(RankerConfig(lr=0.7), 1000, seed=3)
    assert found[0]["lr"] == 0.7
    assert len({tuple(setting.values()) for setting in found}) == len(found) == 1 + 3 * 3 * 3 * 3 * 2
