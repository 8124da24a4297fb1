"""Training state: what is restored is what was written, under its key alone; damage is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qarm.core.training_state import (
    RankerState,
    fingerprint,
    moments,
    restore_ranker_state,
    set_moments,
    write_ranker_state,
)
from qarm.errors import ArtifactError
from qarm.schemas.results import Epoch


class Loop:
    """A training of two layers, of which the second has no gradient in the first step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.random = np.random.default_rng(7)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def step(self) -> None:
        x = torch.from_numpy(self.random.normal(size=(8, 3)).astype(np.float32)) + torch.rand(8, 3)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.model(x).square().mean())
        self.optimizer.step()

    def state(self, steps: int) -> RankerState:
        weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        kept = {name: tensor * 2 for name, tensor in weights.items()}
        lines = [Epoch(epoch=0, loss=0.5, valid_auc=0.7, valid_logloss=0.6)]
        return RankerState(weights, kept, epoch=1, step=steps, best=0, top=0.7, lines=lines)


def test_a_restored_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    one = Loop()
    for _ in range(3):
        one.step()
    state = one.state(3)
    write_ranker_state(tmp_path / "s", state, one.parameters, one.optimizer, one.random, key="k")
    for _ in range(4):
        one.step()
    other = Loop()
    found = restore_ranker_state(tmp_path / "s", other.parameters, other.optimizer, other.random, key="k")
    assert found is not None
    assert (found.epoch, found.step, found.best, found.top, found.lines) == (1, 3, 0, 0.7, state.lines)
    assert all(torch.equal(found.kept[name], tensor) for name, tensor in state.kept.items())
    assert all(torch.equal(found.mean[name], tensor) for name, tensor in state.mean.items())
    for _ in range(4):
        other.step()
    for name, parameter in one.parameters.items():
        assert torch.equal(parameter, other.parameters[name])


def test_another_key_and_no_file_restore_nothing(tmp_path: Path) -> None:
    one = Loop()
    one.step()
    before = {name: parameter.detach().clone() for name, parameter in one.parameters.items()}
    write_ranker_state(tmp_path / "s", one.state(1), one.parameters, one.optimizer, one.random, key="k")
    one.step()
    after = {name: parameter.detach().clone() for name, parameter in one.parameters.items()}
    for path, key in ((tmp_path / "s", "other"), (tmp_path / "absent", "k")):
        assert restore_ranker_state(path, one.parameters, one.optimizer, one.random, key=key) is None
    assert all(torch.equal(one.parameters[name], tensor) for name, tensor in after.items())
    assert not all(torch.equal(one.parameters[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    one, path = Loop(), tmp_path / "s"
    one.step()
    write_ranker_state(path, one.state(1), one.parameters, one.optimizer, one.random, key="k")
    content = {"cut": path.read_bytes()[:-5], "empty": b"", "text": b"{}" * 40}[damage]
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not readable .*; delete it to start the training anew"):
        restore_ranker_state(path, one.parameters, one.optimizer, one.random, key="k")


def test_moments_are_those_of_the_parameters_that_learned() -> None:
    one = Loop()
    assert moments(one.optimizer, one.parameters) == {}
    one.model[1].weight.requires_grad_(requires_grad=False)
    one.step()
    kept = moments(one.optimizer, one.parameters)
    assert {name.split("/")[1] for name in kept} == {"0.weight", "0.bias", "1.bias"}
    other = Loop()
    set_moments(other.optimizer, other.parameters, kept)
    again = moments(other.optimizer, other.parameters)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_fingerprint_knows_values_types_shapes_and_order() -> None:
    array = np.arange(6, dtype=np.int32)
    others = [
        [array.astype(np.int64)],
        [array.reshape(2, 3)],
        [array[::-1]],
        [array, None],
        [None, array],
        [array[:3], array[3:]],
        [],
    ]
    prints = [fingerprint(parts) for parts in ([array], *others)]
    assert len(set(prints)) == len(prints)
    assert fingerprint([np.arange(12, dtype=np.int32)[::2] // 2]) == fingerprint([array])
