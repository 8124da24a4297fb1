"""Variables of torchrun: an empty one is unset, a wrong one is an error in one sentence."""

import pytest

from qarm.core.parallel.ranks import launched, rank
from qarm.errors import InputError

ALL = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": ""},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": " "},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": ""},
    ],
)
def test_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **variables)
    assert not launched()
    assert rank() == 0


def test_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **ALL)
    assert launched()
    assert rank() == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "got WORLD_SIZE='two' in the environment, need a whole number; unset it"),
        ({"WORLD_SIZE": "-1"}, "got WORLD_SIZE='-1' in the environment"),
        ({"WORLD_SIZE": "0"}, "got WORLD_SIZE='0' in the environment"),
        ({"WORLD_SIZE": "2", "RANK": "1.5"}, "got RANK='1.5' in the environment"),
        (ALL | {"RANK": "2"}, "got WORLD_SIZE=2 and RANK=2, need a rank below the size"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, r"\(missing: MASTER_ADDR, MASTER_PORT\); start with torchrun"),
        (ALL | {"MASTER_PORT": ""}, r"\(missing: MASTER_PORT\)"),
    ],
)
def test_wrong_variables(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **variables)
    with pytest.raises(InputError, match=message):
        launched()
