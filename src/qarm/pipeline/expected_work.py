"""Expected seconds of each stage and memory, from timed encoders and measured constants."""

from qarm.config import RetrieverConfig
from qarm.data.run_inputs import Run
from qarm.schemas.check import Expected

__all__ = ["expected_work"]

# seconds, measured on two cores of different machines: right within a factor of three, see docs/sizing.md
MINE_PER_CLICK = 35e-6  # User2Item with its two-tower model: 348 s for 10 million clicks; Swing is far below
ALIGN_PER_STEP = 0.06  # of the heads over two towers, batch 512
RETRIEVE_PER_EVENT = 60e-6  # of the sequence model, forward and back: 2,000 items, histories of 30 events
CHOOSE_PER_CELL = 3e-6  # of weights and settings of counting, by validation user and item of the catalogue
RANK_PER_CELL = 0.5e-6  # of test users' lists
MOST_CHOOSING = 4_000  # users by whom weights are chosen
RANK_PER_ROW = 15e-6  # of the ranker, forward and back
OPERATIONS = 5e9  # multiplications a second of the quantizer: 3 x 1,024 codes, 500,000 x 256, in 8 s
TRAININGS = 2  # of the sequence model: one to choose the epochs, one on all items
EPOCHS_SHARE = 0.5  # of the epochs, before training stops early
BACKWARD = 3  # a step that learns, in forward passes
GB = 1e9
BASE_GB, PER_CLICK_GB, PER_NUMBER_GB = 1.0, 90 / GB, 4 / GB  # Python with torch; the log; float32
NUMBERS_PER_ITEM = 2_000  # of the features of three encoders


def expected_work(run: Run, encode: float) -> Expected:
    """Seconds by stage, where all encoders take `encode` seconds for one item.

    A frozen encoder reads every item once. One that is tuned reads both items of each pair in every step, and
    all items again for the vectors before and after.
    """
    config, items, clicks = run.config, len(run.tables[0]), len(run.split.train)
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
        "retrieve": _retrieve(config.retriever, clicks, len(run.split.train.users), items),
        "train": trainings * rows * config.ranker.epochs * EPOCHS_SHARE * RANK_PER_ROW,
    }
    numbers = items * NUMBERS_PER_ITEM
    memory = BASE_GB + len(run.tables[1]) * PER_CLICK_GB + numbers * PER_NUMBER_GB
    return Expected(
        seconds={name: round(value, 1) for name, value in seconds.items()}, memory_gb=round(memory, 1)
    )


def _retrieve(settings: RetrieverConfig, clicks: int, users: int, items: int) -> float:
    """Seconds of the retrievers; the sequence model goes through the events until it has its fewest steps."""
    events = max(settings.epochs * clicks, settings.min_steps * min(settings.batch, clicks))
    trained = TRAININGS * events * RETRIEVE_PER_EVENT if "model" in settings.blend else 0.0
    return trained + items * (min(users, MOST_CHOOSING) * CHOOSE_PER_CELL + users * RANK_PER_CELL)
