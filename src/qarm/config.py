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
from qarm.schemas.base import Settings

__all__ = ["FEATURES", "Config", "features_of", "load_config", "saved_config"]

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

    path: Path = Path("items.parquet")  # Parquet, CSV or JSON Lines
    id: str = "item_id"  # column of item ids, text or integers
    text: list[str] = ["title", "description"]  # columns that are joined, in this order, to the item's text
    # column of paths inside the table's folder, or of file contents; null: no pictures
    image: str | None = "image_path"
    audio: str | None = "audio_path"  # the same for sounds


class InteractionsTable(Page):
    """Where the click log lies; `order` may stand for `time`; `where` keeps matching rows.

    `label` decides early stopping and ranking. `labels` names the columns of further labels (0, 1, or null
    where unknown), `{like: liked}`, each of which the ranker learns with a last layer of its own.
    """

    path: Path = Path("interactions.parquet")  # Parquet, CSV or JSON Lines
    user: str = "user_id"  # column of user ids
    item: str = "item_id"  # column of item ids, written as in the items' table
    time: str = "timestamp"  # column of whole numbers, dates or date-times
    order: str | None = None  # column that stands for `time` where there is only an order; larger is later
    label: str | None = None  # column of 1 (positive) and 0; null: every event is positive
    labels: dict[str, str] = {}  # further labels by name: their columns, 0, 1 or null
    where: dict[str, bool | int | float | str] = {}  # keep only rows whose columns equal these values
    max_unknown: Share = 0.05  # largest share of events on items that the catalogue lacks; these are dropped


class UsersTable(Page):
    """Where users are described; `features` names categorical columns for the ranker, by default none."""

    path: Path = Path("users.parquet")  # Parquet, CSV or JSON Lines
    id: str = "user_id"  # column of user ids
    features: list[str] = []  # categorical columns that the ranker reads


class Data(Page):
    """Relative table paths resolve against `root`; media paths against their table's folder."""

    root: Path = Path()  # folder of the tables; a relative one starts where the command is called
    items: ItemsTable = ItemsTable()
    interactions: InteractionsTable = InteractionsTable()
    users: UsersTable = UsersTable()


class SplitConfig(Page):
    """time: latest share of all events; user_tail: of each user's; last_out: the last two events."""

    kind: Literal["time", "user_tail", "last_out"] = "time"  # where to cut
    test: Share = 0.2  # share of the events; `last_out` does not read it
    valid: Share = 0.1  # share of the events before them; `last_out` does not read it
    cold_items: Share = 0.0  # share of the training items that lose their events before the test part

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitConfig":
        if self.test + self.valid >= 1.0:
            raise ValueError(f"test + valid = {self.test + self.valid:g}, need less than 1")
        return self


class SwingConfig(Page):
    """`user_weight` power is (items + user_alpha) ** user_beta; `time_window` in units of the time column."""

    # smooths small overlaps: the score divides by alpha + shared items
    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    top_k: Count = 20  # neighbours per item
    user_weight: Literal["sqrt", "power"] = "sqrt"  # sqrt: 1 / sqrt(items of the user)
    user_alpha: Annotated[float, Field(gt=-1.0)] = 5.0  # of `power`
    user_beta: float = -0.35  # of `power`
    min_user_items: Count = 2  # users with fewer items do not count
    time_window: Count | None = None  # only events less than this long before the latest one count; null: all
    # a user with more counts with a seeded sample of them; null: no limit
    max_items_per_user: Annotated[int, Field(ge=2)] | None = 1000
    # an item with more is scored from a seeded sample of its users; null: no limit
    max_users_per_item: Annotated[int, Field(ge=2)] | None = 1000


class User2ItemConfig(Page):
    """The id model whose item vectors decide which past item is most similar to a target."""

    model: Literal["two_tower", "als", "bpr"] = "two_tower"  # als and bpr need the extra `als`
    dim: Count = 64  # numbers per vector
    epochs: Count = 10  # passes over the clicks
    batch: Count = 1024  # clicks per step; of two_tower
    lr: Positive = 0.01  # step size, of two_tower and bpr
    temperature: Positive = 0.2  # divides the cosines before the softmax; of two_tower
    max_steps: Count = 20_000  # training ends here even if epochs are left; of two_tower


class PerSource(Page):
    """One number for each source of pairs; None leaves a source alone."""

    item2item: Annotated[float, Field(ge=0.0)] | None = None  # for pairs of Swing
    user2item: Annotated[float, Field(ge=0.0)] | None = None  # for pairs of User2Item


class PairsConfig(Page):
    """Thresholds, shares (`mix`) and the popularity correction are explained in docs/pairs.md."""

    window: Count = 50  # latest past items of a user among which User2Item looks for a trigger
    per_item: Count = 40  # most rows in which one item stands, as trigger and as target
    min_score: PerSource = PerSource()  # least score by source
    min_count: PerSource = PerSource()  # least count by source
    mix: PerSource = PerSource()  # parts of the sources: of the cap, and of the sum of the weights
    # p: pairs are ranked by strength / (n_trigger * n_target) ** p
    popularity: Annotated[float, Field(ge=0.0)] = 0.0
    directions: Literal["one", "both"] = "one"  # both: every pair also the other way round
    swing: SwingConfig = SwingConfig()
    user2item: User2ItemConfig = User2ItemConfig()


class FilterConfig(Page):
    """`model` names a causal language model that keeps or rejects pairs; see docs/alignment.md."""

    model: str | None = None  # name or folder of a causal language model; null: no filter
    prompt: Path | None = None  # text file with the question; null: the one that comes with qarm
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  # pairs that score less are rejected
    batch: Count = 16  # pairs asked about at once


class EncoderConfig(Page):
    """`text` and `image` name a packaged encoder or a folder; None leaves the modality out. `model` names
    one checkpoint that reads whole items, in place of the three.

    Training takes `epochs`, but no fewer than `min_steps` and no more than `max_steps` steps of `accumulate`
    batches. docs/alignment.md explains every setting.
    """

    model: str | None = None  # one checkpoint for whole items, by name or folder; null: the three towers
    # the packaged encoder, or any sentence-transformers checkpoint; null: no text
    text: str | None = "all-minilm-l6-v2"
    image: str | None = "efficientnet-lite0"  # the packaged encoder; null: no pictures
    audio: str | None = "logmel"  # log-mel frames and a small network; null: no sounds
    # what learns: the heads alone, LoRA in the towers too, or everything
    tune: Literal["heads", "lora", "full"] = "heads"
    tune_layers: Count | None = None  # with `full`: only the last layers of each stack learn; null: all
    lora_rank: Count = 16  # of the LoRA matrices
    fusion: Literal["concat", "attention", "none"] = "concat"  # how the modalities become one vector
    anchor: Share = 0.0  # weight of the raw vector beside the learned one
    dim: Count = 128  # numbers per learned vector
    hidden: Count = 512  # width of the fusion's network
    dropout: Share = 0.4  # inside the heads
    modality_dropout: Share = 0.1  # chance that training hides a modality of an item
    epochs: Count = 5  # passes over the pairs
    batch: Annotated[int, Field(ge=2)] = 512  # pairs per batch; the others of a batch are a pair's negatives
    accumulate: Count = 1  # batches per step
    chunk: Count = 32  # items that go through a tower at once: what bounds the memory
    # chunks of a batch that stay in memory and are spared a second pass
    kept_chunks: Annotated[int, Field(ge=0)] = 4
    lr: Positive = 3e-3  # step size of the heads
    tower_lr: Positive = 1e-4  # step size of the towers, where they learn
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2  # of AdamW
    warm_up: Share = 0.05  # share of the steps in which the step size grows from 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the step size after that
    temperature: Positive = 0.2  # that training starts at; it is learned
    symmetric: bool = True  # the loss also from target to trigger
    # how much of the log of an item's share of the pairs is taken from its scores
    log_q: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    # nearest strangers of each trigger that join its negatives, found anew each epoch
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    source_weights: PerSource = PerSource()  # weigh the pairs of each source
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of live towers; auto: bfloat16 on a GPU
    min_steps: Count = 250  # at least so many, whatever `epochs` says
    max_steps: Count = 2000  # at most so many, whatever `epochs` says
    checkpoint_steps: Count = 100  # between two checkpoints in the cache
    filter: FilterConfig = FilterConfig()
    cache: Path | None = None  # folder of tower features and checkpoints; null: `cache/` in the run

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

    levels: Count = 3  # integers in an RQ code
    # codes per level: one number, or one for each level
    width: Literal["auto"] | Annotated[int, Field(ge=2)] | list[Annotated[int, Field(ge=2)]] = "auto"
    iterations: Count = 25  # of k-means, at most, on each level
    # levels whose codes get equally many items
    balance: Literal["none", "last", "all", "last-approximate", "all-approximate"] = "none"
    last: Literal["kmeans", "fsq", "opq"] = "kmeans"  # kind of the last level
    # what is done with items that share their full code
    collisions: Literal["keep", "suffix", "reassign"] = "keep"
    nearest: Count = 25  # entries of a VQ code
    # most items that a VQ code chooses from, a seeded sample; null: all training items
    pool: Count | None = None
    # auto: exact up to 100,000 items in the pool, an inverted file beyond
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

    train: Count = 4  # per positive and epoch, drawn anew
    eval: Count = 100  # per positive of validation and test


class RankerConfig(Page):
    """One architecture for all variants; `batch` counts rows, `patience` epochs without a better one.

    `cross` matches by code are attended to, from among the latest `long_history` events. `missing_codes`:
    items without codes share a code of their own.
    """

    # what the ranker knows of an item, one training each; see docs/recommender.md
    variants: Annotated[list[Variant], Field(min_length=1)] = list(VARIANTS)
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]  # one training each; intervals need two or more
    negatives: Negatives = Negatives()
    history: Count = 50  # latest events of a user that the ranker attends to
    long_history: Count = 1000  # latest events of a user that are searched by code
    cross: Count = 10  # matches that the search keeps
    dim: Count = 16  # numbers per embedding
    hidden: list[Count] = [64]  # widths of the network's layers
    dropout: Share = 0.3  # inside the network
    id_dropout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1  # trains the row of items without an id
    epochs: Count = 20  # passes over the training rows, at most
    patience: Count = 3  # epochs without a better validation AUC before training stops
    batch: Count = 1024  # rows per step
    lr: Positive = 5e-3  # step size of AdamW
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1  # of AdamW
    # code tables start at random, each level's from its centroids, or the VQ table from its items' vectors
    start: Literal["random", "codebooks", "pool"] = "random"
    prefixes: Annotated[int, Field(ge=0)] = 0  # rows of a table for codes 1 and 2 together; 0: none
    nearest_weights: bool = False  # weigh a VQ list's entries by place
    time: bool = False  # attention knows how long ago an event was
    missing_codes: Share = 0.0  # largest share of items without codes that passes

    @model_validator(mode="after")
    def _nothing_twice(self) -> "RankerConfig":
        for name, values in (("variants", self.variants), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} names one twice; remove it")
        return self


class CompareConfig(Page):
    """The comparison of docs/protocol.md; `variants` empty: the protocol's; `primary` minus its second."""

    variants: list[str] = []  # with `@` and `id-wide` as in docs/protocol.md
    # each draws its cold items, negatives, encoder, codebooks and ranker
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2, 3, 4]
    # three: pairs, ranker's rows and test; one: pairs and rows share the training part
    windows: Literal["three", "one"] = "three"
    cold_items: Share = 0.15  # share of the training items that lose their events before the test part
    negatives: Count = 50  # per positive, of each kind
    catalogue_users: Count = 300  # users for whom the whole catalogue is ranked
    # users whose validation and test events are judged, the same for all seeds; 0: all
    judged_users: Annotated[int, Field(ge=0)] = 0
    search: Count = 12  # ranker settings that are tried on validation first; 1: those of `ranker` as they are
    primary: tuple[str, str] = ("id+rq+vq", "id")  # the one comparison that is not corrected for many
    peer: bool = False  # also torch-rechub's DIN on the same rows; needs the extra `peers`


class Config(Page):
    """Everything a run depends on."""

    seed: Seed = 0  # of everything that is drawn, but for what has seeds of its own
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

    @property
    def users_path(self) -> Path:
        return self.data.root / self.data.users.path


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


def saved_config(settings: Settings) -> Config:
    """Config of the sections that a manifest or a bundle holds; the other sections have their defaults.

    Raises:
        ConfigError: a value is wrong.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError([f"saved settings: {_explain(e)}" for e in error.errors()]) from None


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
