"""A tiny world, and a seed of its comparison."""

from pathlib import Path

import pytest

from qarm.comparison.compare import seed_run
from qarm.comparison.seed_run import SeedRun
from qarm.comparison.variants import parse_variant
from qarm.config import Config, load_config
from qarm.data.run_inputs import Run
from qarm.demo import WorldSpec, build_world

TINY = {
    "pairs.user2item.epochs": "1",
    "encoder.image": "null",
    "encoder.audio": "null",
    "encoder.epochs": "1",
    "encoder.min_steps": "1",
    "retriever.min_steps": "1",
    "retriever.epochs": "1",
    "encoder.dim": "16",
    "quantizer.width": "4",
    "quantizer.nearest": "3",
    "ranker.epochs": "1",
    "ranker.dim": "4",
    "ranker.hidden": "[8]",
    "compare.seeds": "[0, 1]",
    "compare.negatives": "5",
    "compare.catalogue_users": "20",
    "compare.search": "2",
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return build_world(folder, seed=0, spec=WorldSpec(items=120, users=60, events_per_user=25)).folder


def config_of(world: Path, **flags: str) -> Config:
    return load_config(None, flags={"data.root": str(world), **TINY, **flags}, environment={})


def seed_of(config: Config, out: Path) -> SeedRun:
    """Seed 0 of a comparison, nothing trained."""
    variants = [parse_variant(name) for name in config.compare.variants]
    return seed_run(Run(config, out), out, variants, seed=0)
