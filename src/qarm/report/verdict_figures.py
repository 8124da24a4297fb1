"""Figures of a run that its verdict judges, and the commands and findings that all judgements share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qarm.core.atomic_io import read_model
from qarm.schemas.base import Check
from qarm.schemas.codes import CodeQuality
from qarm.schemas.encoder import EmbeddingQuality
from qarm.schemas.pairs import PairQuality
from qarm.schemas.results import Results, Row
from qarm.schemas.retrieval import RetrievalResults
from qarm.schemas.verdict import Finding, Gain, Outcome

__all__ = [
    "CHECK",
    "COMPARE",
    "MORE_SEEDS",
    "RUN",
    "RunFigures",
    "judged",
    "missing",
    "read_figures",
    "worst",
]

RUN, COMPARE = "qarm run CONFIG --out RUN", "qarm compare CONFIG --out RUN"
MORE_SEEDS = f"{RUN} --ranker.seeds '[0, 1, 2]'"
CHECK = "qarm check CONFIG"
FEW_EVENTS = 5.0  # of a user, below which little can be learned from a history


@dataclass(frozen=True)
class RunFigures:
    """Figures of a run's stages; retrieval: None where an earlier qarm fitted no retrievers."""

    rows: Sequence[Row]
    vectors: EmbeddingQuality
    codes: CodeQuality
    pairs: PairQuality
    check: Check
    retrieval: RetrievalResults | None = None

    @property
    def seeds(self) -> int:
        """Number of seeds of the ranker."""
        return len({row.seed for row in self.rows})

    @property
    def coded(self) -> str | None:
        """Variant that stands for the codes: ids and most codes, no fixed vector, the last of these."""
        found = [v for v in dict.fromkeys(row.variant for row in self.rows) if _features(v) & {"rq", "vq"}]
        return max(reversed(found), key=_codes_only) if found else None

    @property
    def events_per_user(self) -> float:
        """Mean number of events of a user."""
        return self.check.interactions / max(self.check.users, 1)

    @property
    def few_events(self) -> tuple[str, str] | None:
        """Cause and command where users have few events, else None."""
        mean = self.events_per_user
        return (f"{mean:.1f} events a user are few to learn from", CHECK) if mean < FEW_EVENTS else None

    @property
    def one_more_level(self) -> str:
        """Command that codes with one more level."""
        return f"{RUN} --quantizer.levels {len(self.codes.levels) + 1}"


def _features(variant: str) -> set[str]:
    return set(variant.split("+"))


def _codes_only(variant: str) -> tuple[bool, bool, int]:
    features = _features(variant)
    return not features & {"frozen", "raw"}, "id" in features, len(features & {"rq", "vq"})


def read_figures(run: Path) -> RunFigures:
    """Figures of a run's finished stages.

    Raises:
        ArtifactError: a stage up to the ranker has not finished, or its JSON is damaged.
    """
    retrieval = run / "retriever" / "results.json"
    return RunFigures(
        rows=read_model(run / "recommender" / "results.json", Results).rows,
        vectors=read_model(run / "embeddings" / "quality.json", EmbeddingQuality),
        codes=read_model(run / "codes" / "quality.json", CodeQuality),
        pairs=read_model(run / "pairs" / "quality.json", PairQuality),
        check=read_model(run / "check" / "check.json", Check),
        retrieval=read_model(retrieval, RetrievalResults) if retrieval.is_file() else None,
    )


def judged(
    name: str,
    outcome: Outcome,
    figure: str,
    sentence: str,
    gains: Sequence[Gain],
    remedy: tuple[str, str],
) -> Finding:
    """Finding with the likely cause and the next command, which a pass does not have."""
    cause, command = (None, None) if outcome == "pass" else remedy
    return Finding(
        name=name,
        outcome=outcome,
        figure=figure,
        sentence=sentence,
        gains=list(gains),
        cause=cause,
        command=command,
    )


def missing(name: str, command: str | None = None) -> Finding:
    """Finding on what the run has no figures of."""
    sentence = "the run has no figures to compare."
    return Finding(name=name, outcome="not measured", figure="-", sentence=sentence, command=command)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes."""
    found = set(outcomes)
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"
