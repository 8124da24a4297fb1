"""The whole configuration on one typed page: a model per stage, unknown keys refused."""

import difflib
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from qarm.errors import ConfigError

__all__ = ["FEATURES", "Config", "features_of", "load_config"]

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0)]
VARIANTS = ("id", "id+frozen", "id+rq", "id+vq", "id+rq+vq")
FEATURES = ("id", "raw", "frozen", "rq", "vq", "cross")
ENVIRONMENT_PREFIX = "QARM_"
MAX_DEPTH, MAX_ALIASES, MAX_LENGTH = 20, 20, 1_000_000
MAX_SHOWN = 200  # characters of a value in a message


def features_of(variant: str) -> list[str]:
    """What a variant such as `id+rq+vq` lets the ranker know of an item.

    Raises:
        ValueError: a feature is unknown, named twice, or needs another one.
    """
    features = variant.split("+")
    unknown = [name for name in features if name not in FEATURES]
    if unknown or len(set(features)) < len(features):
        raise ValueError(
            f"got variant {variant!r}, need {', '.join(FEATURES)}, each at most once, joined by +"
        )
    if "cross" in features and "rq" not in features:
        raise ValueError(f"variant {variant}: cross searches by RQ code; add rq")
    if {"raw", "frozen"} <= {*features}:
        raise ValueError(f"variant {variant}: raw and frozen are two versions of one vector; take one")
    return features


def _named(variant: str) -> str:
    features_of(variant)
    return variant


Variant = Annotated[str, AfterValidator(_named)]


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ItemsTable(Page):
    """Where the catalogue lies and what its columns are called."""

    path: Path = Path("items.parquet")
    id: str = "item_id"
    text: list[str] = ["title", "description"]
    image: str | None = "image_path"
    audio: str | None = "audio_path"


class InteractionsTable(Page):
    """Where the click log lies; `order` may stand for `time`; `where` keeps matching rows."""

    path: Path = Path("interactions.parquet")
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    order: str | None = None
    label: str | None = None
    where: dict[str, bool | int | float | str] = {}
    max_unknown: Share = 0.05


class Data(Page):
    """Relative table paths resolve against `root`; media paths against their table's folder."""

    root: Path = Path()
    items: ItemsTable = ItemsTable()
    interactions: InteractionsTable = InteractionsTable()


class SplitConfig(Page):
    """time: latest share of all events; user_tail: of each user's; last_out: the last two events."""

    kind: Literal["time", "user_tail", "last_out"] = "time"
    test: Share = 0.2
    valid: Share = 0.1
    cold_items: Share = 0.0

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitConfig":
        if self.test + self.valid >= 1.0:
            raise ValueError(f"test + valid = {self.test + self.valid:g}, need less than 1")
        return self


class SwingConfig(Page):
    """`user_weight` power is (items + user_alpha) ** user_beta; `time_window` in units of the time column."""

    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    top_k: Count = 20
    user_weight: Literal["sqrt", "power"] = "sqrt"
    user_alpha: float = 5.0
    user_beta: float = -0.35
    min_user_items: Count = 2
    time_window: Count | None = None
    max_items_per_user: Count = 1000
    max_users_per_item: Count = 1000


class User2ItemConfig(Page):
    """The id model whose item vectors decide which past item is most similar to a target."""

    model: Literal["two_tower", "als", "bpr"] = "two_tower"
    dim: Count = 64
    epochs: Count = 10
    batch: Count = 1024
    lr: Positive = 0.01
    temperature: Positive = 0.2
    max_steps: Count = 20_000


class PerSource(Page):
    """One number for each source of pairs; None leaves a source alone."""

    item2item: Annotated[float, Field(ge=0.0)] | None = None
    user2item: Annotated[float, Field(ge=0.0)] | None = None


class PairsConfig(Page):
    """Thresholds, shares (`mix`) and the popularity correction are explained in docs/pairs.md."""

    window: Count = 50
    per_item: Count = 40
    min_score: PerSource = PerSource()
    min_count: PerSource = PerSource()
    mix: PerSource = PerSource()
    popularity: Annotated[float, Field(ge=0.0)] = 0.0
    directions: Literal["one", "both"] = "one"
    swing: SwingConfig = SwingConfig()
    user2item: User2ItemConfig = User2ItemConfig()


class FilterConfig(Page):
    """`model` names a causal language model that keeps or rejects pairs; see docs/alignment.md."""

    model: str | None = None
    prompt: Path | None = None
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    batch: Count = 16


class EncoderConfig(Page):
    """`text` and `image` name a packaged encoder or a folder; None leaves the modality out. `model` names
    one checkpoint that reads whole items, in place of the three.

    Training takes `epochs`, but no fewer than `min_steps` and no more than `max_steps` steps of `accumulate`
    batches. docs/alignment.md explains every setting.
    """

    model: str | None = None
    text: str | None = "all-minilm-l6-v2"
    image: str | None = "efficientnet-lite0"
    audio: str | None = "logmel"
    tune: Literal["heads", "lora", "full"] = "heads"
    tune_layers: Count | None = None
    lora_rank: Count = 16
    fusion: Literal["concat", "attention", "none"] = "concat"
    anchor: Share = 0.0
    dim: Count = 128
    hidden: Count = 512
    dropout: Share = 0.4
    modality_dropout: Share = 0.1
    epochs: Count = 5
    batch: Annotated[int, Field(ge=2)] = 512
    accumulate: Count = 1
    chunk: Count = 32
    kept_chunks: Annotated[int, Field(ge=0)] = 4
    lr: Positive = 3e-3
    tower_lr: Positive = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    warm_up: Share = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    temperature: Positive = 0.2
    symmetric: bool = True
    log_q: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    source_weights: PerSource = PerSource()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    min_steps: Count = 250
    max_steps: Count = 2000
    checkpoint_steps: Count = 100
    filter: FilterConfig = FilterConfig()
    cache: Path | None = None

    @model_validator(mode="after")
    def _something_to_train(self) -> "EncoderConfig":
        if self.fusion == "none" and self.tune == "heads":
            raise ValueError("fusion=none leaves tune=heads nothing to train; set tune to lora or full")
        if self.anchor and (self.tune != "heads" or self.fusion == "none"):
            raise ValueError(
                "an anchor is the vector of frozen towers; set tune=heads and a fusion, or anchor=0"
            )
        return self


class QuantizerConfig(Page):
    """`width` auto follows the number of items: see docs/codes.md."""

    levels: Count = 3
    width: Literal["auto"] | Annotated[int, Field(ge=2)] | list[Annotated[int, Field(ge=2)]] = "auto"
    iterations: Count = 25
    balance: Literal["none", "last", "all", "last-approximate", "all-approximate"] = "none"
    last: Literal["kmeans", "fsq", "opq"] = "kmeans"
    collisions: Literal["keep", "suffix", "reassign"] = "keep"
    nearest: Count = 25
    pool: Count | None = None
    index: Literal["auto", "exact", "ivf"] = "auto"

    @model_validator(mode="after")
    def _one_width_per_level(self) -> "QuantizerConfig":
        if isinstance(self.width, list) and len(self.width) != self.levels:
            raise ValueError(f"width has {len(self.width)} entries, need levels={self.levels}")
        if self.last != "kmeans" and self.levels < 2:
            raise ValueError(f"last={self.last} stands on k-means levels; need levels=2 or more")
        if self.last != "kmeans" and (self.balance != "none" or self.collisions == "reassign"):
            raise ValueError(f"balance and reassign need a k-means last level; got last={self.last}")
        return self


class Negatives(Page):
    """Drawn per positive where the log has positives only."""

    train: Count = 4
    eval: Count = 100


class RankerConfig(Page):
    """One architecture for all variants; `batch` counts rows, `patience` epochs without a better one.

    `cross` matches by code are attended to, from among the latest `long_history` events.
    """

    variants: Annotated[list[Variant], Field(min_length=1)] = list(VARIANTS)
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    negatives: Negatives = Negatives()
    history: Count = 50
    long_history: Count = 1000
    cross: Count = 10
    dim: Count = 16
    hidden: list[Count] = [64]
    dropout: Share = 0.3
    id_dropout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1  # trains the row of items without an id
    epochs: Count = 20
    patience: Count = 3
    batch: Count = 1024
    lr: Positive = 5e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1

    @model_validator(mode="after")
    def _nothing_twice(self) -> "RankerConfig":
        for name, values in (("variants", self.variants), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} names one twice; remove it")
        return self


class CompareConfig(Page):
    """The comparison of docs/protocol.md; `variants` empty: the protocol's; `primary` minus its second."""

    variants: list[str] = []
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2, 3, 4]
    windows: Literal["three", "one"] = "three"
    cold_items: Share = 0.15
    negatives: Count = 50
    catalogue_users: Count = 300
    primary: tuple[str, str] = ("id+rq+vq", "id")


class Config(Page):
    """Everything a run depends on."""

    seed: Seed = 0
    data: Data = Data()
    split: SplitConfig = SplitConfig()
    pairs: PairsConfig = PairsConfig()
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    ranker: RankerConfig = RankerConfig()
    compare: CompareConfig = CompareConfig()

    @property
    def items_path(self) -> Path:
        return self.data.root / self.data.items.path

    @property
    def interactions_path(self) -> Path:
        return self.data.root / self.data.interactions.path


def load_config(
    path: Path | None = None,
    *,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read a config; flags beat environment variables, which beat the file, which beats defaults.

    Args:
        path: a YAML file, or None for defaults.
        flags: dotted keys to text, `{"data.root": "shop", "quantizer.levels": "4"}`; values are YAML.
        environment: variables; `QARM_DATA__ROOT=shop` sets `data.root`. Default: `os.environ`.

    Raises:
        ConfigError: the file, a key or a value is wrong; every problem is listed.
    """
    content = {} if path is None else _read_yaml(path)
    variables = os.environ if environment is None else environment
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _set(content, key, text, origin=name)
    for key, text in (flags or {}).items():
        _set(content, key, text, origin=f"--{key}")
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        origin = "config" if path is None else str(path)
        raise ConfigError([f"{origin}: {_explain(e)}" for e in error.errors()]) from None


class _Loader(yaml.SafeLoader):
    """Plain values only, and no more of them than a config needs: aliases can stand for any amount."""

    depth = aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > MAX_DEPTH or self.aliases > MAX_ALIASES:
            raise yaml.YAMLError(
                f"over {MAX_DEPTH} levels deep, or over {MAX_ALIASES} aliases; write it flat"
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _parsed(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ValueError: it is none.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"got {len(text):,} characters, need at most {MAX_LENGTH:,}")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # dates and numbers that are none leave PyYAML as the errors of Python's own types
        raise ValueError(" ".join(str(error).split())[:MAX_SHOWN]) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a YAML file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__}, need keys such as data, split, pairs")
    return content


def _set(content: dict[str, Any], key: str, text: str, *, origin: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{origin}: {parent} is a value, not a section")
        content = below
    try:
        content[last] = _parsed(text)
    except ValueError:
        raise ConfigError(f"{origin}: {_short(text)} is not a YAML value; quote it") from None


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {place}; did you mean {'.'.join([*map(str, error['loc'][:-1]), *near])}?"
    return f"{place} = {_short(error['input'])}: {error['msg'].removeprefix('Value error, ')}"


def _short(value: Any) -> str:
    """`repr` of a bounded length: an alias, and so a value, may hold itself."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = MAX_SHOWN
    try:
        return shortener.repr(value)
    except ValueError:  # Python's limit on the digits of an integer
        return "an integer of thousands of digits"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)
