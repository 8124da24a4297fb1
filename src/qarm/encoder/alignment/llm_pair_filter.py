"""Pair filter by a language model (QARM V2): it reads both items and scores whether the pair makes sense."""

from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from qarm.core.tables.parquet import write_parquet
from qarm.data.catalog import Catalog
from qarm.encoder.towers.tower import default_device
from qarm.errors import InputError

__all__ = ["PROMPT", "LanguageModelPairScorer", "PairScorer", "filter_pairs"]

PROMPT = """Two items of one catalogue were often chosen by the same people.

Item A: {trigger}

Item B: {target}

Would somebody who likes item A plausibly be interested in item B? Answer with one word, yes or no.
Answer:"""
YES, NO = ("yes", "Yes", " yes", " Yes", "YES"), ("no", "No", " no", " No", "NO")
LONGEST = 1_000  # letters of an item's text
Floats = npt.NDArray[np.float32]
PairScorer = Callable[[Sequence[tuple[str, str]]], Sequence[float] | Floats]
"""Scores pairs of texts (trigger, target) between 0, senseless, and 1."""


def filter_pairs(
    pairs: pl.DataFrame,
    catalog: Catalog,
    scorer: PairScorer,
    *,
    threshold: float = 0.5,
    batch: int = 1024,
    rejected: Path | None = None,
) -> pl.DataFrame:
    """Pairs that a scorer keeps.

    A pair of which an item has no text is kept unjudged; two directions of a pair are judged apart, several
    sources of one direction once.

    Args:
        pairs: trigger_id and target_id of the catalogue's items; other columns stay.
        scorer: called with up to `batch` pairs of texts; must answer with as many scores from 0 to 1.
        threshold: pairs that score less are rejected.
        rejected: Parquet file for what was rejected, with its `score` as `filter_score`.

    Raises:
        InputError: the scorer answers with too few or too many scores, or with something that is no share.
    """
    texts = dict(catalog.frame.select("item_id", "text").rows())
    sides = ["trigger_id", "target_id"]
    asked = pairs.select(sides).unique(maintain_order=True)
    known = [texts.get(a) is not None and texts.get(b) is not None for a, b in asked.rows()]
    asked = asked.filter(pl.Series(known, dtype=pl.Boolean))
    scores: list[float] = []
    for first in range(0, asked.height, batch):
        part = [(texts[a], texts[b]) for a, b in asked[first : first + batch].rows()]
        scores += _checked(scorer(part), len(part))
    judged = asked.with_columns(filter_score=pl.Series(scores, dtype=pl.Float32))
    joined = pairs.join(judged, on=sides, how="left", maintain_order="left")
    bad = pl.col("filter_score").fill_null(1.0) < threshold
    if rejected is not None:
        write_parquet(rejected, joined.filter(bad))
    return joined.filter(~bad).drop("filter_score")


def _checked(answer: Sequence[float] | Floats, count: int) -> list[float]:
    found = np.asarray(answer, dtype=np.float64).ravel()
    if len(found) != count or not ((found >= 0) & (found <= 1)).all():
        raise InputError(
            f"the pair filter answered {count} pairs with {len(found)} scores, {found[:3].tolist()}, ...; "
            "need one from 0 to 1 for each"
        )
    return found.tolist()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"encoder.filter.prompt = {str(path)!r}: not readable as text ({error})") from None


class LanguageModelPairScorer:
    """Asks a causal language model; the score is the share of "yes" in what it would say next, of yes and no.

    Args:
        model: hub name or folder of a transformers checkpoint with safetensors weights; its own code is
            never run.
        prompt: text with {trigger} and {target} in it, or its file; None: `PROMPT`. A model with a
            chat template gets it as the user's message.
        batch: pairs at a time; a pair's score does not depend on its neighbours but for rounding.
        device: where to run; a GPU when there is one.

    Raises:
        InputError: no such model, or a prompt without its two places.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | Path | None = None,
        batch: int = 16,
        device: str | None = None,
    ) -> None:
        self.name, self.batch = str(model), batch
        self.device = device or default_device()
        self.prompt = _text(prompt) if isinstance(prompt, Path) else prompt or PROMPT
        missing = [place for place in ("{trigger}", "{target}") if place not in self.prompt]
        if missing:
            raise InputError(
                f"the prompt of the pair filter lacks {' and '.join(missing)}; put the texts there"
            )

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it prints without a terminal too
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.name, trust_remote_code=False, padding_side="left")
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"encoder.filter.model = {self.name!r}: not a usable language model: {reason}"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, model.to(self.device).eval()

    @cached_property
    def _takes(self) -> set[str]:
        return set(signature(self._loaded[1].forward).parameters)

    @cached_property
    def _answers(self) -> tuple[list[int], list[int]]:
        """Tokens that begin a yes, and a no."""
        tokenizer, _ = self._loaded
        found = [
            sorted({tokenizer.encode(word, add_special_tokens=False)[0] for word in words})
            for words in (YES, NO)
        ]
        yes, no = ([token for token in own if token not in other] for own, other in (found, found[::-1]))
        if not yes or not no:
            raise InputError(
                f"encoder.filter.model = {self.name!r}: its tokenizer begins yes and no alike; "
                "take another model"
            )
        return yes, no

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Scores of pairs of texts, float32 [n]."""
        prompts = [self._prompt(trigger, target) for trigger, target in pairs]
        scores = np.empty(len(prompts), dtype=np.float32)
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        for first in range(0, len(order), self.batch):
            rows = order[first : first + self.batch]
            scores[rows] = self._score([prompts[row] for row in rows])
        return scores

    def _prompt(self, trigger: str, target: str) -> str:
        filled = self.prompt.replace("{target}", "\0").replace("{trigger}", trigger[:LONGEST])
        filled = filled.replace("\0", target[:LONGEST])
        tokenizer, _ = self._loaded
        if getattr(tokenizer, "chat_template", None) is None:
            return filled
        message = [{"role": "user", "content": filled}]
        templated: str = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return templated

    @torch.inference_mode()
    def _score(self, prompts: list[str]) -> Floats:
        tokenizer, model = self._loaded
        given = tokenizer(prompts, return_tensors="pt", padding=True).to(self.device)
        given.pop("token_type_ids", None)
        if "position_ids" in self._takes:  # some models count the padding on the left unless they are told
            given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
        shares = model(**given).logits[:, -1].float().softmax(-1)
        yes, no = (shares[:, tokens].sum(1) for tokens in self._answers)
        return np.asarray((yes / (yes + no).clamp(min=1e-30)).cpu().numpy(), dtype=np.float32)
