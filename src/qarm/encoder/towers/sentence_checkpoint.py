"""Sentence-transformers checkpoint: prompts, routes, special tokens, and vectors of preprocessed items."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from qarm.core.atomic_io import read_json
from qarm.encoder.towers.checkpoint import Checkpoint
from qarm.encoder.towers.tower import side_by_side
from qarm.errors import InputError, shown
from qarm.schemas.encoder import TowerOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SentenceCheckpoint"]

Given = TypeVar("Given")
Made = TypeVar("Made")

# without cuDNN's, which plans anew, for a second or so, for every shape of a batch
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
SETTINGS = "config_sentence_transformers.json"
ROUTE = "document"  # of a Router that has no default one: items are what is searched, not queries
PLACEHOLDERS = (
    "image_token",
    "audio_token",
    "video_token",
    "boi_token",
    "eoi_token",
    "boa_token",
    "eoa_token",
)


class SentenceCheckpoint(Checkpoint):
    """A checkpoint that sentence-transformers loads; arguments and errors as in `Checkpoint`."""

    @cached_property
    def _prompts(self) -> tuple[dict[str, str], str | None]:
        """Prompts of the checkpoint by name, and the name of the default one."""
        path = self.folder / SETTINGS
        saved = read_json(path) if path.is_file() else {}
        saved = saved if isinstance(saved, dict) else {}
        return saved.get("prompts") or {}, saved.get("default_prompt_name")

    @cached_property
    def options(self) -> TowerOptions:
        """The prompt's name, by default the checkpoint's `default_prompt_name`, and `truncate_dim`.

        Raises:
            InputError: the checkpoint has no such prompt.
        """
        (prompts, default), asked = self._prompts, self._asked
        name = default if asked.prompt is None else asked.prompt
        if name and name not in prompts:
            have = shown(sorted(prompts)) if prompts else "none"
            raise InputError(
                f"encoder.prompt = {name!r}: {self.name!r} has no such prompt; it has {have}; "
                "take one of them, or leave encoder.prompt out"
            )
        return TowerOptions(prompt=name if name and prompts[name] else None, truncate_dim=asked.truncate_dim)

    def has_prompt(self, name: str) -> bool:
        """Whether the checkpoint has a prompt of that name."""
        return name in self._prompts[0]

    @cached_property
    def _prompt(self) -> str | None:
        name = self.options.prompt
        return None if name is None else self._prompts[0][name]

    def _load(self) -> torch.nn.Module:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(self.folder),
            device=self.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
        longest, asked = model.get_embedding_dimension(), self.options.truncate_dim
        if asked is not None and longest is not None and asked > longest:
            raise InputError(
                f"encoder.truncate_dim = {asked}: vectors of {self.name!r} have {longest} numbers; lower it"
            )
        return model

    @cached_property
    def _reading(self) -> Lock:
        return Lock()  # processors keep state between the lines of a call

    @cached_property
    def _input(self) -> tuple[Any, dict[str, str]]:
        """The module that reads texts, and what names the route to it where a Router has several."""
        from sentence_transformers.sentence_transformer.modules import Router

        first: Any = self.model[0]
        if not isinstance(first, Router):
            return first, {}
        parts: Any = first.sub_modules
        routes, default = list(parts), first.default_route
        mapped = {(None, "text"), (None, None)} & set(first.route_mappings)
        if default is not None or mapped or "text" in routes:
            route = first._resolve_route(modality="text")
            return parts[route][0], {}
        if ROUTE not in routes:
            raise InputError(
                f"{self.key} = {self.name!r}: a Router of {shown(routes)} without a default route; "
                f"give it one, or a route {ROUTE!r}"
            )
        return parts[ROUTE][0], {"task": ROUTE}

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        module = self._input[0]
        tokenizer: Any
        tokenizer, processor = getattr(module, "tokenizer", None), getattr(module, "processor", None)
        added = list(getattr(tokenizer, "added_tokens_decoder", {}).values())
        if hasattr(tokenizer, "get_added_tokens_decoder"):  # one of the library tokenizers
            added += tokenizer.get_added_tokens_decoder().values()
        tokens = {*getattr(tokenizer, "all_special_tokens", ()), *(t.content for t in added if t.special)}
        named = (getattr(holder, name, None) for holder in (tokenizer, processor) for name in PLACEHOLDERS)
        tokens |= {token for token in named if isinstance(token, str)}
        # a token of spaces cannot be broken up; it is read as the model reads spaces
        ordered = sorted((t for t in tokens if len(t.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def plain(self, text: str) -> str:
        """The text with the model's special tokens broken up, so that they are read as plain text."""
        if self._special is None:
            return text
        while (broken := self._special.sub(_broken, text)) != text:
            text = broken
        return text

    def tokens(self, texts: Sequence[str]) -> tuple[list[int], int | None]:
        """Tokens of each text with its prompt, and how many the model reads; None: all of them."""
        module = self._input[0]
        tokenizer: Any = getattr(module, "tokenizer", None)
        longest = getattr(module, "max_seq_length", None)
        if not callable(tokenizer) or longest is None or longest == float("inf"):
            return [], None
        given = [(self._prompt or "") + self.plain(text) for text in texts]
        found = tokenizer(given, truncation=False, padding=False, verbose=False)["input_ids"]
        return [len(ids) for ids in found], int(longest)

    # ---- learning -------------------------------------------------------------------------------

    @property
    def adaptable(self) -> torch.nn.Module | None:
        """The part that LoRA is put into."""
        found: torch.nn.Module | None = self.model.transformers_model
        return found

    def preprocessed(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Messages as the model's tensors, on the host; may be called from threads.

        A text is always {"text": ...}: a bare string that looks like a path would be opened as media. Modules
        that read nothing but text take bare strings.
        """
        module, route = self._input
        bare = not hasattr(module, "processor")
        given: Any = [message["text"] for message in messages] if bare else list(messages)
        model: SentenceTransformer = self.model
        with self._reading:
            return dict(model.preprocess(given, prompt=self._prompt, **route))

    def sentence_vectors(self, features: Mapping[str, Any]) -> Tensor:
        """Vectors of preprocessed items, float [n, d], with a gradient where one is wanted."""
        there = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        with nullcontext() if self.device == "cpu" else sdpa_kernel(ATTENTION):
            found: Tensor = self.model(there)["sentence_embedding"]
        return found[:, : self.options.truncate_dim]

    def each(self, function: Callable[[Given], Made], inputs: Sequence[Given]) -> list[Made]:
        """`[function(x) for x in inputs]`, on a CPU side by side."""
        return side_by_side(function, inputs) if self.device == "cpu" else list(map(function, inputs))

    def _write(self, folder: Path) -> None:
        self.model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


def _broken(found: re.Match[str]) -> str:
    """A token with a space after its first letter; spaces around it would make the same token again."""
    token = found[0].lstrip()
    return f"{found[0][: len(found[0]) - len(token)]}{token[0]} {token[1:]}"
