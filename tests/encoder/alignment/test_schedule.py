"""Learning-rate schedule: the rise, three kinds of decay, and beyond the end."""

import pytest

from qarm.encoder.alignment.schedule import rate_share


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_a_schedule_rises_in_the_warm_up_and_then_decays(schedule: str, expected: list[float]) -> None:
    shares = [rate_share(step, 10, warm_up=2, schedule=schedule) for step in (0, 1, 2, 6, 10, 11)]
    assert shares == pytest.approx(expected)


def test_a_training_of_warm_up_alone() -> None:
    assert [rate_share(step, 1, warm_up=1) for step in (0, 1)] == [1.0, 1.0]
