"""Expected seconds of each stage and memory, from timed encoders and the constants of docs/sizing.md."""

from qarm.data.run_inputs import Run
from qarm.schemas.check import Expected

__all__ = ["expected_work"]

# seconds on two cores of an AMD EPYC, from docs/sizing.md
MINE_PER_CLICK = 35e-6
ALIGN_PER_STEP = 0.06
RANK_PER_ROW = 15e-6
OPERATIONS = 5e9  # multiplications a second of the quantizer
EPOCHS_SHARE = 0.5  # of the epochs, before training stops early
BACKWARD = 3  # a step that learns, in forward passes
GB = 1e9
BASE_GB, PER_CLICK_GB, PER_NUMBER_GB = 1.0, 90 / GB, 4 / GB  # Python with torch; the log; float32
NUMBERS_PER_ITEM = 2_000  # of the features of three encoders


def expected_work(run: Run, encode: float) -> Expected:
    """Seconds by stage, where all encoders take `encode` seconds for one item.

    An encoder that is tuned reads every item of every batch.
    """
    config, items, clicks = run.config, len(run.catalog), len(run.split.train)
    pairs = min(config.pairs.per_item * items / 2, clicks * config.pairs.window)
    chosen = config.encoder
    steps = min(max(pairs / chosen.batch * chosen.epochs, chosen.min_steps), chosen.max_steps)
    passes = items if chosen.tune == "heads" else BACKWARD * 2 * chosen.batch * steps
    rows = clicks * (1 if run.split.explicit else 1 + config.ranker.negatives.train)
    trainings = len(config.ranker.variants) * len(config.ranker.seeds)
    width = config.quantizer.width
    codes = max(width) if isinstance(width, list) else width if isinstance(width, int) else items / 16
    work = items * codes * config.quantizer.levels * config.quantizer.iterations * chosen.dim
    seconds = {
        "mine": clicks * MINE_PER_CLICK,
        "align": passes * encode + steps * ALIGN_PER_STEP,
        "embed": 0.0 if chosen.tune == "heads" else 2 * items * encode,
        "quantize": work / OPERATIONS,
        "train": trainings * rows * config.ranker.epochs * EPOCHS_SHARE * RANK_PER_ROW,
    }
    numbers = items * NUMBERS_PER_ITEM
    memory = BASE_GB + len(run.tables[1]) * PER_CLICK_GB + numbers * PER_NUMBER_GB
    return Expected(
        seconds={name: round(value, 1) for name, value in seconds.items()}, memory_gb=round(memory, 1)
    )
