"""Config of the stages: a section for each, and the whole config; unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from qarm.config.retriever import RetrieverConfig
from qarm.config.tables import Count, Data, Place, Positive, Section, Seed, Share, SplitConfig, empty
from qarm.schemas.encoder import Pooling, TowerOptions

__all__ = [
    "FEATURES",
    "CompareConfig",
    "Config",
    "EncoderConfig",
    "FilterConfig",
    "Negatives",
    "PairsConfig",
    "PerSource",
    "QuantizerConfig",
    "RankerConfig",
    "SwingConfig",
    "User2ItemConfig",
    "features_of",
]

VARIANTS = ("id", "id+frozen", "id+rq", "id+vq", "id+rq+vq")
FEATURES = ("id", "raw", "frozen", "rq", "vq", "cross")


def features_of(variant: str) -> list[str]:
    """Item features of a variant such as `id+rq+vq`, in its order.

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


def _checked(variant: str) -> str:
    features_of(variant)
    return variant


Variant = Annotated[str, AfterValidator(_checked)]


Towers = str | Annotated[list[str], Field(min_length=1)] | None  # of a modality: names or folders


class SwingConfig(Section):
    """`user_weight` power is (items + user_alpha) ** user_beta; `time_window` in units of the time column."""

    # smooths small overlaps: the score divides by alpha + shared items
    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    top_k: Count = 20  # neighbours per item
    user_weight: Literal["sqrt", "power"] = "sqrt"  # sqrt: 1 / sqrt(items of the user)
    user_alpha: Annotated[float, Field(gt=-1.0)] = 5.0  # of `power`
    user_beta: float = -0.35  # of `power`
    min_user_items: Count = 2  # users with fewer items are left out
    time_window: Count | None = None  # only events less than this long before the latest one; null: all
    # of a user with more, a seeded sample; null: no limit
    max_items_per_user: Annotated[int, Field(ge=2)] | None = 1000
    # of an item with more users, a seeded sample; null: no limit
    max_users_per_item: Annotated[int, Field(ge=2)] | None = 1000


class User2ItemConfig(Section):
    """The id model; its item vectors decide which earlier item of a user is most similar to a target."""

    model: Literal["two_tower", "als", "bpr"] = "two_tower"  # als and bpr need the extra `als`
    dim: Count = 64  # numbers per vector
    epochs: Count = 10  # passes over the clicks
    batch: Count = 1024  # clicks per step; of two_tower
    lr: Positive = 0.01  # step size, of two_tower and bpr
    temperature: Positive = 0.2  # divides the cosines before the softmax; of two_tower
    max_steps: Count = 20_000  # training ends here even if epochs are left; of two_tower


class PerSource(Section):
    """One number for each source of pairs; null: no such setting for the source."""

    item2item: Annotated[float, Field(ge=0.0)] | None = None  # for pairs of Swing
    user2item: Annotated[float, Field(ge=0.0)] | None = None  # for pairs of User2Item


class PairsConfig(Section):
    """Thresholds, shares (`mix`) and the popularity correction are explained in docs/pairs.md."""

    window: Count = 50  # latest earlier items of a user among which User2Item searches the trigger
    per_item: Count = 40  # most rows with one item, as trigger or as target
    min_score: PerSource = PerSource()  # least score by source
    min_count: PerSource = PerSource()  # least count by source
    mix: PerSource = PerSource()  # shares of the sources, in the row limit and in the sum of the weights
    # p: pairs are ranked by strength / (n_trigger * n_target) ** p
    popularity: Annotated[float, Field(ge=0.0)] = 0.0
    directions: Literal["one", "both"] = "one"  # both: every pair also in reverse
    swing: SwingConfig = SwingConfig()
    user2item: User2ItemConfig = User2ItemConfig()


class FilterConfig(Section):
    """`model` names a causal language model that keeps or rejects pairs; see docs/alignment.md."""

    model: str | None = None  # name or folder of a causal language model; null: no filter
    prompt: Place | None = None  # text file with the question; null: the packaged one
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5  # pairs that score less are rejected
    batch: Count = 16  # pairs per forward pass


class EncoderConfig(Section):
    """Encoder of the items and its alignment.

    `text`, `image` and `audio` name a packaged encoder or a checkpoint, or several in a list; null leaves the
    modality out. `model` names one checkpoint that reads whole items, instead of the three towers.

    Training takes `epochs`, but at least `min_steps` and at most `max_steps` steps of `accumulate` batches.
    docs/alignment.md explains every setting.
    """

    model: str | None = None  # one checkpoint for whole items, by name or folder; null: the three towers
    # the packaged encoder, or any sentence-transformers checkpoint; null: no text
    text: Towers = "all-minilm-l6-v2"
    image: Towers = "efficientnet-lite0"  # the packaged encoder, or any checkpoint for pictures; null: none
    # log-mel frames and a small network, or any checkpoint for sounds; null: none
    audio: Towers = "logmel"
    # name of one of the text checkpoint's prompts; null: its default one; "": none
    prompt: Annotated[str | None, Field(exclude_if=empty)] = None
    # first numbers of a text vector that are kept, of checkpoints that were trained for it; null: all
    truncate_dim: Annotated[Count | None, Field(exclude_if=empty)] = None
    # of picture and sound checkpoints; auto: their pooled output, their class token, or the mean
    pooling: Annotated[Pooling, Field(exclude_if=lambda pooling: pooling == "auto")] = "auto"
    # what is trained: the heads alone, LoRA in the towers too, or everything
    tune: Literal["heads", "lora", "full"] = "heads"
    tune_layers: Count | None = None  # with `full`: only the last layers of each stack are trained; null: all
    lora_rank: Count = 16  # of the LoRA matrices
    # how the vectors of the modalities are combined into one
    fusion: Literal["concat", "attention", "none"] = "concat"
    anchor: Share = 0.0  # weight of the raw vector, relative to the trained one
    # the same for items without a training pair, beside an `anchor` above 0; null: that of the others
    anchor_cold: Annotated[Positive | None, Field(lt=1.0, exclude_if=empty)] = None
    dim: Count = 128  # numbers per trained vector
    hidden: Count = 512  # width of the fusion's network
    dropout: Share = 0.4  # inside the heads
    modality_dropout: Share = 0.1  # probability that training drops a modality of an item
    epochs: Count = 5  # passes over the pairs
    batch: Annotated[int, Field(ge=2)] = 512  # pairs per batch; other items of the batch are negatives
    accumulate: Count = 1  # batches per step
    chunk: Count = 32  # items per forward pass of a tower; bounds the memory
    # chunks of a batch that are kept in memory and need no second pass
    kept_chunks: Annotated[int, Field(ge=0)] = 4
    lr: Positive = 3e-3  # step size of the heads
    tower_lr: Positive = 1e-4  # step size of the towers, where they are trained
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2  # of AdamW
    warm_up: Share = 0.05  # share of the steps in which the step size rises from 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the step size after that
    temperature: Positive = 0.2  # at the start of training; it is trained
    symmetric: bool = True  # the loss also from target to trigger
    # logQ correction: factor of log(share of the item in the pairs), subtracted from its scores
    log_q: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    # nearest unlabelled items of each trigger that are added to its negatives, mined anew in each epoch
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    source_weights: PerSource = PerSource()  # weight of the pairs of each source
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of trained towers; auto: bfloat16 on a GPU
    min_steps: Count = 250  # fewest steps, whatever `epochs` is
    max_steps: Count = 2000  # most steps, whatever `epochs` is
    checkpoint_steps: Count = 100  # steps between two checkpoints in the cache
    filter: FilterConfig = FilterConfig()
    cache: Place | None = None  # folder of tower features and checkpoints; null: `cache/` in the run

    @property
    def options(self) -> TowerOptions:
        """Options of the checkpoints."""
        return TowerOptions(prompt=self.prompt, truncate_dim=self.truncate_dim, pooling=self.pooling)

    @model_validator(mode="after")
    def _something_to_train(self) -> "EncoderConfig":
        if self.fusion == "none" and self.tune == "heads":
            raise ValueError("fusion=none leaves tune=heads nothing to train; set tune to lora or full")
        if self.anchor_cold is not None and not self.anchor:
            raise ValueError("anchor_cold stands beside an anchor of the other items; set anchor above 0")
        if self.anchor and (self.tune != "heads" or self.fusion == "none"):
            raise ValueError(
                "an anchor is the vector of frozen towers; set tune=heads and a fusion, or anchor=0"
            )
        return self


class QuantizerConfig(Section):
    """`width` auto follows the number of items: see docs/codes.md."""

    levels: Count = 3  # integers in an RQ code
    # codes per level: one number, or one for each level
    width: Literal["auto"] | Annotated[int, Field(ge=2)] | list[Annotated[int, Field(ge=2)]] = "auto"
    iterations: Count = 25  # of k-means, at most, on each level
    # levels on which every code gets equally many items
    balance: Literal["none", "last", "all", "last-approximate", "all-approximate"] = "none"
    last: Literal["kmeans", "fsq", "opq"] = "kmeans"  # kind of the last level
    # treatment of items that share their full code
    collisions: Literal["keep", "suffix", "reassign"] = "keep"
    nearest: Count = 25  # entries of a VQ code
    # most items in the pool of the VQ codes, a seeded sample; null: all training items
    pool: Count | None = None
    # auto: exact up to 100,000 items in the pool, an inverted file beyond
    index: Literal["auto", "exact", "ivf"] = "auto"

    @model_validator(mode="after")
    def _one_width_per_level(self) -> "QuantizerConfig":
        if isinstance(self.width, list) and len(self.width) != self.levels:
            raise ValueError(f"width has {len(self.width)} entries, need levels={self.levels}")
        if self.last != "kmeans" and self.levels < 2:
            raise ValueError(f"last={self.last} follows k-means levels; need levels=2 or more")
        if self.last != "kmeans" and (self.balance != "none" or self.collisions == "reassign"):
            raise ValueError(f"balance and reassign need a k-means last level; got last={self.last}")
        return self


class Negatives(Section):
    """Numbers of sampled negatives, where the log has positives only."""

    train: Count = 4  # per positive and epoch, drawn anew
    eval: Count = 100  # per positive of validation and test


class RankerConfig(Section):
    """One architecture for all variants.

    `cross`: number of events, among the latest `long_history`, that match the target by code and that
    attention reads. `missing_codes`: items without codes share one extra code.
    """

    # item features of the rankers, one training for each; see docs/recommender.md
    variants: list[Variant] = Field(default=list(VARIANTS), min_length=1)
    seeds: list[Seed] = Field(default=[0], min_length=1)  # one training each; intervals need two or more
    negatives: Negatives = Negatives()
    history: Count = 50  # latest events of a user that attention reads
    long_history: Count = 1000  # latest events of a user that the search by code reads
    cross: Count = 10  # matches that the search keeps
    dim: Count = 16  # numbers per embedding
    hidden: list[Count] = Field(default=[64])  # widths of the network's layers
    dropout: Share = 0.3  # inside the network
    id_dropout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1  # trains the row of items without an id
    epochs: Count = 20  # passes over the training rows, at most
    patience: Count = 3  # epochs without a better validation figure before training stops
    batch: Count = 1024  # rows per step
    lr: Positive = 5e-3  # step size of AdamW
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1  # of AdamW
    # the same of embeddings of ids; null: `weight_decay`
    id_decay: Annotated[float, Field(ge=0.0)] | None = None
    bias_decay: Annotated[float, Field(ge=0.0)] | None = None  # of biases; null: `weight_decay`
    code_decay: Annotated[float, Field(ge=0.0)] | None = None  # of code tables; null: `weight_decay`
    select: Literal["auc", "gauc"] = "auc"  # validation figure of early stopping
    # code tables start at random, each level's from its centroids, or the VQ table from its items' vectors
    start: Literal["random", "codebooks", "pool"] = "random"
    prefixes: Annotated[int, Field(ge=0)] = 0  # rows of a table for codes 1 and 2 together; 0: none
    # rows of a table for the prefixes of each length, 1 to all codes, whose vectors are summed; 0: none
    ngrams: Annotated[int, Field(ge=0)] = 0
    # an id's vector is a prior from content, and its own by events / (events + shrinkage); 0: its own alone
    shrinkage: Annotated[float, Field(ge=0.0)] = 0.0
    # tiers of a histogram of the candidate's cosines with the history, where the variant has vectors; 0: none
    tiers: Annotated[int, Field(ge=0)] = 0
    nearest_weights: bool = False  # weight of a VQ list's entries by rank
    time: bool = False  # attention reads the time since each event
    missing_codes: Share = 0.0  # largest share of items without codes that is accepted

    @model_validator(mode="after")
    def _no_duplicates(self) -> "RankerConfig":
        for name, values in (("variants", self.variants), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} holds one twice; remove it")
        return self


class CompareConfig(Section):
    """The comparison of docs/protocol.md; no `variants`: those of the protocol.

    The primary result is the difference of the two variants of `primary`, first minus second.
    """

    edition: Literal[1, 2] = 2  # of docs/protocol.md; 1 goes on with a comparison that was begun by it
    variants: list[str] = Field(default=[])  # with `@` and `id-wide` as in docs/protocol.md
    # each for its own cold items, negatives, encoder, codebooks and ranker
    seeds: list[Seed] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    # three: pairs, ranking examples, test; one: pairs and examples share the training part
    windows: Literal["three", "one"] = "three"
    cold_items: Share = 0.15  # share of the training items whose events before the test part are removed
    negatives: Count = 50  # per positive, of each kind
    catalogue_users: Count = 300  # users for whom the whole catalogue is ranked
    # users whose validation and test events are evaluated, the same for all seeds; 0: all
    judged_users: Annotated[int, Field(ge=0)] = 0
    # ranker settings compared on validation first, for each family of variants; 1: only those of `ranker`
    search: Count = 12
    # ranker settings by family, as a search leaves them in compare/tuned.yaml; such a family is not searched
    tuned: dict[str, dict[str, int | float]] = Field(default={})
    primary: tuple[str, str] = ("id+rq+vq", "id")  # the comparison that stands first
    retrieval: bool = False  # also retrieval arms: the parts of `retriever.blend`, ids alone, placebo codes
    peer: bool = False  # also torch-rechub's DIN on the same rows; needs the extra `peers`


class Config(Section):
    """The settings of a run."""

    seed: Seed = 0  # of every random draw, except where a section has seeds
    data: Data = Data()
    split: SplitConfig = SplitConfig()
    pairs: PairsConfig = PairsConfig()
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    retriever: RetrieverConfig = RetrieverConfig()
    ranker: RankerConfig = RankerConfig()
    compare: CompareConfig = CompareConfig()

    @property
    def items_path(self) -> Path:
        """Path of the table of items."""
        return self.data.root / self.data.items.path

    @property
    def interactions_path(self) -> Path:
        """Path of the table of interactions."""
        return self.data.root / self.data.interactions.path

    @property
    def users_path(self) -> Path:
        """Path of the table of users."""
        return self.data.root / self.data.users.path
