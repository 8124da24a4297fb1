"""Findings on items: alignment against raw vectors, use of the codes, retrieval against counting."""

from qarm.core.text_tables import interval_text, percent_text
from qarm.report.verdict_figures import CHECK, RUN, RunFigures, judged, missing, worst
from qarm.schemas.verdict import Finding, Gain, Outcome

__all__ = ["alignment_over_raw", "retrieval_over_counting", "use_of_codes"]

WEAK_LIFT = 1.2
MOST = {"pass": 0.05, "warn": 0.2}  # largest share of colliding items, and of codes without items
NEAR = 0.05  # share of a counting retriever's NDCG that the blend may lack and only warn
LARGE = 500  # items from which a list of 50 is a tenth of them at most


def alignment_over_raw(figures: RunFigures) -> Finding:
    """Gain in hit rate of aligned over raw vectors, on what users choose after the split."""
    name, quality = "alignment over raw vectors", figures.vectors
    cut = "50" if quality.items >= LARGE else "10"
    asked = ("aligned", "raw", "all", cut)
    rows = [d for d in quality.differences if (d.method, d.against, d.slice, d.cutoff) == asked]
    if not rows or not quality.clicks or (mean := rows[0].difference) is None:
        return missing(name)
    low, high = rows[0].difference_interval or (None, None)
    gain = Gain(
        method="aligned", against="raw", slice="all", metric="hit rate", mean=mean, low=low, high=high
    )
    outcome: Outcome = "warn"
    if low is not None and high is not None:
        outcome = "pass" if low > 0 else "fail" if high < 0 else "warn"
    points = None if low is None or high is None else [100 * low, 100 * high]
    figure = f"{interval_text(100 * mean, points, form='+.2f')} points"
    rates = {row.method: row.hit_rate[cut] for row in quality.hit_rates if row.slice == "all"}
    before, after = (percent_text(rates.get(method)) for method in ("raw", "aligned"))
    sentence = f"hit rate at {cut} of later clicks {before} before and {after} after: {figure}."
    return judged(name, outcome, figure, sentence, [gain], figures.few_events or _alignment_remedy(figures))


def _alignment_remedy(figures: RunFigures) -> tuple[str, str]:
    lifts = [s.lift.lift for s in figures.pairs.sources.values() if s.lift and s.lift.lift is not None]
    if lifts and max(lifts) < WEAK_LIFT:
        return f"the mined pairs are hardly better than random ones (lift {max(lifts):.2f})", CHECK
    cause = "training was too short, or the vectors already said before what users choose"
    return cause, f"{RUN} --encoder.epochs 20"


def use_of_codes(figures: RunFigures) -> Finding:
    """Share of items that share their full code, and share of codes without an item."""
    levels, shared = figures.codes.levels, figures.codes.full_codes.collision_rate
    dead = sum(level.dead for level in levels) / max(sum(level.width for level in levels), 1)
    outcome = worst(
        "pass" if share <= MOST["pass"] else "warn" if share <= MOST["warn"] else "fail"
        for share in (shared, dead)
    )
    remedy = ("too few codes for the items", figures.one_more_level)
    if shared <= MOST["pass"]:
        width = max(2, min(level.used for level in levels))
        remedy = ("more codes on a level than kinds of items", f"{RUN} --quantizer.width {width}")
    first, second = percent_text(shared), percent_text(dead)
    sentence = f"{first} of the items share a full code, {second} of the codes have no item."
    return judged("collisions and dead codes", outcome, f"{first}, {second}", sentence, [], remedy)


def retrieval_over_counting(figures: RunFigures) -> Finding:
    """NDCG at 10 of the blend and of the sequence model against the best retriever that only counts."""
    name, found = "retrieval over counting", _ndcg(figures)
    counting = {kind: value for kind, value in found.items() if kind not in ("blend", "model")}
    learned = {kind: found[kind] for kind in ("blend", "model") if kind in found}
    if not counting or "blend" not in learned:
        return missing(name)
    best = max(counting, key=lambda kind: counting[kind])
    gains = [
        Gain(method=kind, against=best, slice="all", metric="ndcg@10", mean=value - counting[best])
        for kind, value in learned.items()
    ]
    outcome: Outcome = "pass" if min(gain.mean for gain in gains) >= 0 else "warn"
    if gains[0].mean < -NEAR * counting[best]:
        outcome = "fail"
    remedy = (
        f"the sequence model learned less from the log than {best}, which only counts",
        f"{RUN} --retriever.epochs 16",
    )
    listed = ", ".join(f"{kind} {value:.4f}" for kind, value in (*learned.items(), (best, counting[best])))
    sentence = f"NDCG at 10 over the whole catalogue: {listed}."
    return judged(name, outcome, f"NDCG@10 {listed}", sentence, gains, figures.few_events or remedy)


def _ndcg(figures: RunFigures) -> dict[str, float]:
    """NDCG at 10 of each retriever over all items, with the user's history left out."""
    if figures.retrieval is None:
        return {}
    return {
        row.retriever: row.ndcg
        for row in figures.retrieval.figures
        if row.masked and (row.slice, row.cut) == ("all", 10) and row.ndcg is not None
    }
