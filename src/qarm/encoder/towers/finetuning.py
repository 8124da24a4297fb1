"""Fine-tuning of towers: all weights, the last layers, or LoRA (Hu et al. 2021)."""

import re
from collections import defaultdict
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor, nn

from qarm.encoder.towers.tower import Learnable, Tower
from qarm.errors import InputError, MissingExtraError

__all__ = ["Tune", "Tuned", "tunable"]

Tune = Literal["heads", "lora", "full"]
LAYER = re.compile(r"(.*?\b(?:layers?|h|blocks?|_blocks))\.(\d+)\.")
ALPHA = 2  # LoRA's updates are scaled by it, whatever the rank


def tunable(tower: Tower, tune: Tune) -> bool:
    """Whether a tower has weights that this way of tuning reaches."""
    if tune == "heads" or not hasattr(tower, "fresh"):
        return False
    learnable: Any = tower
    return tune == "full" or learnable.adaptable is not None


class Tuned(nn.Module):
    """A tower's copy whose weights learn.

    Args:
        tower: stays as it is.
        tune: `full`, or `lora`.
        layers: only the last so many layers of each stack, and what comes after them; None: all.
        rank: of LoRA's matrices.

    Raises:
        InputError: fewer layers in the tower than asked for.
        MissingExtraError: peft is not installed.
    """

    def __init__(self, tower: Learnable, *, tune: Tune, layers: int | None, rank: int) -> None:
        super().__init__()
        self.tower = tower.fresh()
        self._adapter: Any = None
        network = self.tower.network
        network.requires_grad_(tune == "full")
        if tune == "lora":
            self._adapter = _adapter(self.tower.adaptable, rank)
        if layers is not None:
            _freeze_below(network, layers)
        self.network = network

    def forward(self, batch: Any) -> Tensor:
        """Features of a collated batch, float [n, ...]."""
        return self.tower.vectors(batch)

    def finished(self) -> Tower:
        """The frozen tower with what was learned, LoRA's updates added to the weights."""
        self.network.eval()
        if self._adapter is not None:
            self._adapter.merge_and_unload()
        return self.tower.learned()


def _adapter(model: nn.Module | None, rank: int) -> Any:
    if find_spec("peft") is None:
        raise MissingExtraError("peft", "lora")
    peft: Any = import_module("peft")
    layers = [m for m, part in (model or nn.Module()).named_modules() if isinstance(part, nn.Linear)]
    config = peft.LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules=layers, bias="none")
    return peft.LoraModel(model, config, "default")


def _freeze_below(network: nn.Module, layers: int) -> None:
    """Only the last layers of each stack learn; what belongs to no layer learns if it comes after a stack."""
    depth: dict[str, int] = defaultdict(int)
    places = {}
    for name, _ in network.named_parameters():
        if found := LAYER.match(f"{name}."):
            places[name] = found[1], int(found[2])
            depth[found[1]] = max(depth[found[1]], int(found[2]) + 1)
    if not depth or min(depth.values()) < layers:
        have = ", ".join(f"{stack} {count}" for stack, count in depth.items()) or "none"
        raise InputError(
            f"encoder.tune_layers = {layers}, and the tower's stacks of layers are: {have}; lower it"
        )
    reached = set()
    for name, parameter in network.named_parameters():
        if name in places:
            stack, layer = places[name]
            reached.add(stack)
            if layer < depth[stack] - layers:
                parameter.requires_grad_(False)
        elif not _comes_after(name, depth.keys(), reached):
            parameter.requires_grad_(False)


def _comes_after(name: str, stacks: Collection[str], reached: Collection[str]) -> bool:
    """Whether a parameter follows the stacks of layers that it shares the nearest module with."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        near = [stack for stack in stacks if stack.startswith("".join(f"{part}." for part in parts[:cut]))]
        if near:
            return all(stack in reached for stack in near)
    return False
