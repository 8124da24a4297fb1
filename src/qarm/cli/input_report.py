"""Lines that `qarm check` prints of its report, and `qarm init` of its proposal."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from qarm.cli.output import duration
from qarm.schemas.check import InputReport
from qarm.schemas.proposal import Proposal

__all__ = ["proposal_lines", "report_lines"]

LONGEST = 160  # characters of a text that are shown


def report_lines(report: InputReport) -> Iterator[str]:
    """Counts, unreadable media with their reason, the split, expected times, and warnings."""
    for name in ("items", "users", "interactions", "unknown_interactions"):
        yield f"{name}: {getattr(report, name):,}"
    for name in ("bad_images", "bad_sounds"):
        bad: dict[str, str] = getattr(report, name)
        yield f"{name}: {len(bad):,}"
        yield from (f"  {item}: {reason}" for item, reason in bad.items())
    yield "texts, as the encoder reads them:"
    yield from (f"  {item}: {_line(text)}" for item, text in report.texts.items())
    log = report.log
    yield f"times: {log.first} to {log.last} ({log.read_as})"
    yield "split: " + ", ".join(f"{name} {count:,}" for name, count in log.parts.items())
    yield f"cold: {log.cold_items:,} items of the test part, {log.cold_share:.1%} of its events"
    for name in ("user", "item"):
        low, median, high = getattr(log, f"clicks_per_{name}")
        yield f"clicks per {name}: {low:,.0f} / {median:,.0f} / {high:,.0f} (10th percentile, median, 90th)"
    times = ", ".join(f"{stage} {duration(taken)}" for stage, taken in report.expected.seconds.items())
    yield f"expected on 2 cores, roughly: {times}; {report.expected.memory_gb:g} GB of memory"
    yield from (f"warning: {warning}" for warning in report.warnings)


def _line(text: str | None) -> str:
    """A text on one line, cut where it is long."""
    whole = "no text" if text is None else " | ".join(text.splitlines())
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}..."


def proposal_lines(proposal: Proposal, out: Path) -> Iterator[str]:
    """Each guess with its reason, `?` before unsure ones, what was left out, and the next command."""
    for guess in proposal.guesses:
        mark = " " if guess.sure else "?"
        name = guess.key if guess.active else f"({guess.key})"
        yield f"{mark} {name}: {json.dumps(guess.value, ensure_ascii=False)}  {guess.why}"
    yield from (f"note: {note}" for note in proposal.notes)
    yield from (f"warning: qarm check will refuse this: {problem}" for problem in proposal.problems)
    unsure = len(proposal.unsure)
    look = f"look at the {unsure} marked with ?; " if unsure else ""
    yield f"wrote {out}: {len(proposal.guesses)} keys; {look}next: qarm check {shlex.quote(str(out))}"
