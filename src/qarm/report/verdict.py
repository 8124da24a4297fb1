"""Verdict on a run: findings on codes, alignment, baselines and retrieval, and their summary in words."""

from pathlib import Path

from qarm.report.item_findings import alignment_over_raw, retrieval_over_counting, use_of_codes
from qarm.report.ranker_findings import (
    codes_over_ids,
    codes_over_untrained,
    codes_over_vector,
    scores_above_chance,
)
from qarm.report.verdict_figures import COMPARE, MORE_SEEDS, RunFigures, read_figures
from qarm.schemas.results import Summary
from qarm.schemas.verdict import Finding, Outcome, Verdict

__all__ = ["run_verdict", "verdict_lines", "verdict_of"]

SEVERITY: tuple[Outcome, ...] = ("fail", "warn", "pass", "not measured")  # worst first
HEADLINES = {
    "pass": "The codes add to the ids",
    "warn": "What the codes add to the ids is not certain",
    "fail": "The codes make the ranker worse than ids alone",
    "not measured": "The codes were not compared with ids",
}


def run_verdict(summary: Summary, run: Path) -> Verdict:
    """Verdict of a report's summary, or where an earlier qarm wrote none there, made of the run's figures."""
    return summary.verdict or verdict_of(read_figures(run))


def verdict_of(figures: RunFigures) -> Verdict:
    """Verdict of all findings: the worst outcome, and the next command of the worst finding that has one."""
    first = codes_over_ids(figures)
    findings = [
        first,
        codes_over_vector(figures),
        alignment_over_raw(figures),
        use_of_codes(figures),
        codes_over_untrained(figures),
        scores_above_chance(figures),
        retrieval_over_counting(figures),
    ]
    ordered = sorted(findings, key=lambda finding: SEVERITY.index(finding.outcome))
    seeds = figures.seeds
    commands = [finding.command for finding in ordered if finding.command is not None]
    last = MORE_SEEDS if seeds == 1 else COMPARE
    return Verdict(
        outcome=ordered[0].outcome,
        sentence=_sentence(first, findings, seeds),
        seeds=seeds,
        findings=findings,
        command=next(iter(commands), last),
    )


def _sentence(first: Finding, findings: list[Finding], seeds: int) -> str:
    """Headline, what was gained, how many findings warn or fail, and how many seeds there are."""
    counts = {outcome: sum(f.outcome == outcome for f in findings) for outcome in ("fail", "warn")}
    judged = sum(finding.outcome != "not measured" for finding in findings)
    found = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "all pass"
    gained = "" if first.outcome == "not measured" else f", in AUC {first.figure}"
    certainty = "One seed: no interval." if seeds == 1 else f"{seeds} seeds: 95 % intervals in brackets."
    return f"{HEADLINES[first.outcome]}{gained}. Of {judged} checks {found}. {certainty}"


def verdict_lines(verdict: Verdict) -> list[str]:
    """Lines of the verdict for a terminal; what is no pass has its likely cause and a command."""
    lines = [f"verdict: {verdict.outcome}. {verdict.sentence}"]
    for finding in verdict.findings:
        lines.append(f"  {finding.outcome:<12}  {finding.name}: {finding.sentence}")
        if finding.cause is not None:
            lines.append(f"{'':16}likely cause: {finding.cause}")
        if finding.command is not None:
            lines.append(f"{'':16}next: {finding.command}")
    return [*lines, f"  next command: {verdict.command}"]
