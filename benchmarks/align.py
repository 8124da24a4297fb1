"""Speed of full fine-tuning against sentence-transformers: `python benchmarks/align.py [DATA]`.

The same checkpoint (all-MiniLM-L6-v2), the same pairs in batches of the same size, the same precision and
mini-batch: pairs a second of our trainer and of `SentenceTransformerTrainer` with its cached loss
(`CachedMultipleNegativesSymmetricRankingLoss`). The two take turns; the median of the rounds' ratios counts.
DATA is a folder with items.parquet and interactions.parquet; without it, the demo world. Needs extra `bench`.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesSymmetricRankingLoss

from qarm.config import EncoderConfig
from qarm.core.parallel.torchrun import Processes
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.interactions import read_log
from qarm.data.splits import split_log
from qarm.demo.build import build_world
from qarm.encoder.alignment.align import AlignmentWork, no_features
from qarm.encoder.alignment.trainer import DECODERS, Trainer
from qarm.encoder.towers.text import TextTower
from qarm.pairs.mining import mine_pairs

NEED = 1.5
CHECKPOINT = "all-minilm-l6-v2"


def datasets(data: Path) -> tuple[Catalog, pl.DataFrame]:
    """Items with a text and their pairs."""
    names = pl.read_parquet_schema(data / "items.parquet").keys()
    text = [name for name in ("title", "description") if name in names]
    catalog = read_catalog(data / "items.parquet", text=text, image=None, audio=None)
    table = pl.read_parquet_schema(data / "interactions.parquet").keys()
    log = read_log(
        data / "interactions.parquet",
        order="order" if "order" in table else None,
        label="label" if "label" in table else None,
        known_items=catalog.item_ids,
    )
    train = split_log(log, kind="user_tail", test=0.2, valid=0.1).train
    return catalog.only(train.items), mine_pairs(train).select("trigger_id", "target_id")


class Ours:
    """Steps of our trainer."""

    def __init__(self, catalog: Catalog, pairs: pl.DataFrame, batch: int, chunk: int, scratch: Path) -> None:
        settings = EncoderConfig(
            tune="full", fusion="none", image=None, audio=None, batch=batch, chunk=chunk, precision="float32"
        )
        work = AlignmentWork(catalog, pairs, {"text": TextTower(CHECKPOINT)}, settings, 0, scratch)
        model = work.model(no_features(catalog), {"text": work.tuned("text")})
        self.trainer = Trainer(model, *work.datasets, settings, 0, Processes(), None)
        self.done = 0

    def steps(self, count: int) -> None:
        with ThreadPoolExecutor(DECODERS) as pool:
            for plans in self.trainer.batches(self.done, self.done + count, pool):
                self.trainer.step(plans, self.done)
                self.done += 1


class Theirs:
    """Steps of sentence-transformers' trainer."""

    def __init__(self, catalog: Catalog, pairs: pl.DataFrame, batch: int, chunk: int, scratch: Path) -> None:
        self.texts = dict(catalog.frame.select("item_id", "text").rows())
        self.pairs, self.batch, self.chunk, self.scratch = (
            pairs.sample(fraction=1, shuffle=True, seed=0),
            batch,
            chunk,
            scratch,
        )
        self.model = TextTower("all-minilm-l6-v2").model
        self.done = 0

    def steps(self, count: int) -> None:

        part = self.pairs[self.done * self.batch : (self.done + count) * self.batch]
        self.done += count
        sides = {side: [self.texts[item] for item in part[side]] for side in ("trigger_id", "target_id")}
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(self.scratch),
            per_device_train_batch_size=self.batch,
            max_steps=count,
            learning_rate=1e-4,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            dataloader_drop_last=False,
        )
        loss: Any = CachedMultipleNegativesSymmetricRankingLoss(self.model, mini_batch_size=self.chunk)
        SentenceTransformerTrainer(
            self.model, arguments, train_dataset=Dataset.from_dict(sides), loss=loss
        ).train()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalog, pairs = datasets(options.data or build_world(Path(scratch) / "world").folder)
        shape = (catalog, pairs, options.batch, options.chunk)
        print(f"{pairs.height:,} pairs of {len(catalog):,} items, {torch.get_num_threads()} threads")
        sides = {"qarm": Ours(*shape, Path(scratch)), "sentence-transformers": Theirs(*shape, Path(scratch))}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                clock = time.perf_counter()
                side.steps(options.steps)
                rates[name].append(options.steps * options.batch / (time.perf_counter() - clock))
    for name, measured in rates.items():
        print(f"{name:24s}{statistics.median(measured):8.1f} pairs/s")
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    print(f"ratio {ratio:.2f} (need >= {NEED})")


if __name__ == "__main__":
    main()
