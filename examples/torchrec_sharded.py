"""Tables too large for one machine: target attention over codes with row-sharded tables (TorchRec).

    torchrun --nproc-per-node 2 examples/torchrec_sharded.py RUN INTERACTIONS.parquet
    python examples/torchrec_sharded.py RUN INTERACTIONS.parquet --plain    # one process, no TorchRec

RUN is a finished run folder, whose codes are read; INTERACTIONS has user_id, item_id and timestamp. Every
process goes through the same batches and takes its share of their events, as `qarm train` does under
torchrun; what differs is that a table's rows are divided among the processes, so that ids and codes may have
more rows than one of them can hold. TorchRec is no dependency of qarm: `pip install torchrec fbgemm-gpu`, on
a machine without a GPU `fbgemm-gpu-cpu`, of the versions made for the torch that is installed (1.8 for 2.13).
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from qarm.core.parallel.torchrun import processes
from qarm.data.codes import Codes
from qarm.data.interactions import read_log
from qarm.recommender.batches import Batch, batches
from qarm.recommender.code_embedding import joined
from qarm.recommender.examples import TrainingRows

DIM, RATE, BATCH = 16, 0.02, 1024
HISTORY = "_history"  # ends the key of a table's rows for the history
Keyed = dict[str, Tensor]
Lookup = Callable[[Keyed, Keyed], Mapping[str, Tensor]]


class PlainTables(nn.Module):
    """What TorchRec's EmbeddingCollection computes, with whole tables: rows by key in, vectors by key out."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(size, DIM) for name, size in sizes.items()})

    def forward(self, rows: Keyed, lengths: Keyed) -> dict[str, Tensor]:
        """Vectors [n, DIM] by key; rows: int64 [n] by key, lengths: rows of each example."""
        return {key: self.tables[key.removesuffix(HISTORY)](values) for key, values in rows.items()}


class ShardedTables(nn.Module):
    """The same through an EmbeddingCollection, whose tables DistributedModelParallel divides by rows."""

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        super().__init__()
        from torchrec import EmbeddingCollection, EmbeddingConfig

        tables = [
            EmbeddingConfig(
                name=name, embedding_dim=DIM, num_embeddings=size, feature_names=[name, name + HISTORY]
            )
            for name, size in sizes.items()
        ]
        self.collection = EmbeddingCollection(tables=tables, device=device)

    def forward(self, rows: Keyed, lengths: Keyed) -> dict[str, Tensor]:
        """Vectors [n, DIM] by key; rows: int64 [n] by key, lengths: rows of each example."""
        from torchrec import KeyedJaggedTensor

        keys = list(rows)
        jagged = KeyedJaggedTensor.from_lengths_sync(
            keys=keys,
            values=torch.cat([rows[key] for key in keys]),
            lengths=torch.cat([lengths[key] for key in keys]),
        )
        found = self.collection(jagged)  # what a sharded collection returns waits until it is read
        return {key: found[key].values() for key in keys}


class Scorer(nn.Module):
    """Target attention by scalar product, then the candidate's product with what it attended to."""

    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.closeness = nn.Parameter(torch.ones(()))
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, rows: Keyed, lengths: Keyed) -> Tensor:
        """Logits [g, c] of a batch's candidates; 0 where padded."""
        vectors = self.tables(rows, lengths)
        own = dense([vectors[key] for key in rows if not key.endswith(HISTORY)], batch.real)
        past = dense([vectors[key] for key in rows if key.endswith(HISTORY)], batch.seen)
        scores = self.closeness * own @ past.transpose(1, 2)
        weights = scores.masked_fill(~batch.seen[:, None], -1e9).softmax(-1)
        attended = (weights * batch.seen.any(1)[:, None, None]) @ past
        return (self.gain * (own * attended).sum(-1) + self.bias) * batch.real


def dense(parts: list[Tensor], there: Tensor) -> Tensor:
    """Sum of the tables' vectors [n, d] put where `there`, bool [g, k], says that something is: [g, k, d]."""
    total = torch.stack(parts).sum(0)
    return total.new_zeros(*there.shape, DIM).masked_scatter(there[..., None], total)


def keyed(batch: Batch, tables: Mapping[str, Tensor]) -> tuple[Keyed, Keyed]:
    """Rows of every table for a batch's candidates and histories, and how many each event has of them."""
    rows: Keyed = {}
    lengths: Keyed = {}
    for name, of_item in tables.items():
        for ending, items, there in (("", batch.items, batch.real), (HISTORY, batch.history, batch.seen)):
            rows[name + ending] = of_item[items[there]]
            lengths[name + ending] = there.sum(1).to(torch.int32)
    return rows, lengths


def item_tables(codes: Codes) -> dict[str, Tensor]:
    """Of each table the row of every item, int64 [items]: one for its id, and one for each code."""
    order = np.argsort(np.array(codes.item_ids))
    columns = joined(Codes([codes.item_ids[n] for n in order], codes.rq[order]))
    found = {"item": torch.arange(len(codes))}
    return found | {f"level_{n}": torch.from_numpy(columns[:, n].copy()) for n in range(columns.shape[1])}


def sharded(model: Scorer, device: torch.device) -> tuple[nn.Module, Any]:
    """The model with its tables divided by rows, and an optimizer of both halves.

    Tables learn during the backward pass, so that no gradient of a whole table is ever held.
    """
    from torch.distributed.optim import _apply_optimizer_in_backward
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.distributed.types import ShardingType
    from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
    from torchrec.optim.optimizers import in_backward_optimizer_filter

    _apply_optimizer_in_backward(torch.optim.Adagrad, model.tables.parameters(), {"lr": RATE})
    by_rows = ParameterConstraints(sharding_types=[ShardingType.ROW_WISE.value])
    names = [table.name for table in model.tables.collection.embedding_configs()]
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=dist.get_world_size(), compute_device=device.type),
        constraints=dict.fromkeys(names, by_rows),
    )
    sharders: Any = [EmbeddingCollectionSharder()]
    plan = planner.collective_plan(model, sharders, dist.GroupMember.WORLD)
    parallel = DistributedModelParallel(module=model, device=device, plan=plan, sharders=sharders)
    dense_part = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(parallel.named_parameters())),
        lambda parameters: torch.optim.Adam(parameters, lr=RATE),
    )
    return parallel, CombinedOptimizer([parallel.fused_optimizer, dense_part])


def train(
    model: nn.Module,
    optimizer: Any,
    rows: TrainingRows,
    tables: Mapping[str, Tensor],
    *,
    epochs: int,
    rank: int = 0,
    size: int = 1,
    device: torch.device,
) -> list[float]:
    """Mean loss of each epoch over this process's events."""
    losses, random = [], np.random.default_rng(0)
    for epoch in range(epochs):
        total, count = 0.0, 0
        for whole in batches(rows.epoch(epoch), BATCH, random=random):
            if len(whole.items) < size:  # a lookup in divided tables needs every process
                continue
            batch = whole.part(rank, size).to(device)
            logits = model(batch, *keyed(batch, tables))
            each = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
            loss = each[batch.real].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + float(loss.detach()), count + 1
        losses.append(total / max(count, 1))
    return losses


def main(arguments: list[str] | None = None) -> list[float]:
    """Mean loss of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="whole tables in one process, without TorchRec")
    asked = parser.parse_args(arguments)
    if not asked.plain and (find_spec("torchrec") is None or "RANK" not in os.environ):
        sys.exit(
            "torchrec_sharded: needs TorchRec and torchrun (pip install torchrec fbgemm-gpu; torchrun "
            "--nproc-per-node 2 examples/torchrec_sharded.py ...), or --plain for whole tables in one process"
        )
    codes = Codes.read(asked.run / "codes" / "codes.parquet")
    log = read_log(asked.interactions, known_items=codes.item_ids)
    rows = TrainingRows(log, item_ids=codes.item_ids, explicit=log.explicit)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables = {name: column.to(device) for name, column in item_tables(codes).items()}
    sizes = {name: int(column.max()) + 1 for name, column in tables.items()}
    torch.manual_seed(0)
    if asked.plain:
        whole = Scorer(PlainTables(sizes)).to(device)
        optimizer: Any = torch.optim.Adam(whole.parameters(), lr=RATE)
        return train(whole, optimizer, rows, tables, epochs=asked.epochs, device=device)
    here = processes(device.type)
    model, optimizer = sharded(Scorer(ShardedTables(sizes, torch.device("meta"))), device)
    return train(
        model,
        optimizer,
        rows,
        tables,
        epochs=asked.epochs,
        rank=here.rank,
        size=here.size,
        device=device,
    )


if __name__ == "__main__":
    for epoch, loss in enumerate(main()):
        print(f"epoch {epoch}  loss {loss:.4f}")
