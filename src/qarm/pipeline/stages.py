"""The stages in their order: what each reads, and which settings its result depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qarm.data.run_inputs import Run
from qarm.pipeline.check import check_tables
from qarm.pipeline.item_stages import align_encoder, embed_items, mine, quantize
from qarm.pipeline.user_stages import RAW, VECTORS, report, retrieve, train
from qarm.schemas.base import Figure

__all__ = ["RAW", "STAGES", "VECTORS", "Stage"]


@dataclass(frozen=True)
class Stage:
    """A stage's name, folder and main file, what its result depends on, and its function."""

    name: str
    main: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    work: Callable[[Run, Path], Mapping[str, Figure]]

    @property
    def folder(self) -> str:
        """Name of the stage's folder in the run folder."""
        return self.main.partition("/")[0]


STAGES = (
    Stage("check", "check/check.json", ("items", "interactions", "media"), ("data",), check_tables),
    Stage("mine", "pairs/pairs.parquet", ("items", "interactions"), ("seed", "data", "split", "pairs"), mine),
    Stage(
        "align",
        "encoder/model.safetensors",
        ("items", "interactions", "media", "check/check.json", "pairs/pairs.parquet"),
        ("seed", "data", "split", "encoder"),
        align_encoder,
    ),
    Stage(
        "embed",
        VECTORS,
        ("items", "interactions", "media", "check/check.json", "pairs/pairs.parquet", "encoder/"),
        ("seed", "data", "split"),
        embed_items,
    ),
    Stage(
        "quantize",
        "codes/codes.parquet",
        ("interactions", "pairs/pairs.parquet", VECTORS),
        ("seed", "data", "split", "quantizer"),
        quantize,
    ),
    Stage(
        "retrieve",
        "retriever/results.json",
        ("interactions", "codes/codes.parquet", VECTORS),
        ("seed", "data", "split", "retriever"),
        retrieve,
    ),
    Stage(
        "train",
        "recommender/results.json",
        ("interactions", "users", "codes/codes.parquet", VECTORS, RAW),
        ("seed", "data", "split", "ranker"),
        train,
    ),
    Stage(
        "report",
        "report/index.html",
        (
            "items",
            "media",
            "check/",
            "pairs/",
            "encoder/",
            "embeddings/",
            "codes/",
            "retriever/",
            "recommender/",
            "compare/results.json",
        ),
        ("seed", "data", "split", "pairs", "encoder", "quantizer", "retriever", "ranker"),
        report,
    ),
)
