"""Proof of the demo world's claim over several seeds: codes beat ids, and content-kNN on cold items.

Every seed reruns every stage on the same world. Prints the table as Markdown with paired 95 %
intervals, writes `proof.json` and `proof.md`, and exits with 1 when a claim's interval touches zero.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from qarm.config import load_config
from qarm.core.atomic_io import read_model, write_json, write_text
from qarm.core.text_tables import markdown_table
from qarm.demo import build_world
from qarm.pipeline import run_stages
from qarm.report.seed_summary import summarize
from qarm.report.tables import result_lines
from qarm.schemas.results import Difference, Results, Row, Summary

CLAIMS = (("id", "all"), ("id", "cold"), ("content-knn", "cold"))
CHAMPION = "id+rq+vq"


def main() -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch comes in
    arguments = parse()
    started = time.perf_counter()
    world = arguments.out / "world"
    build_world(world, seed=0)
    rows: list[Row] = []
    for seed in range(arguments.seeds):
        flags = {
            "data.root": str(world),
            "seed": str(seed),
            "ranker.seeds": f"[{seed}]",
            "encoder.cache": str(arguments.out / "cache"),
        }
        run = arguments.out / f"seed-{seed}"
        for done in run_stages(load_config(flags=flags), run):
            print(f"seed {seed}: {done.stage} {done.seconds:.1f} s", file=sys.stderr, flush=True)
        rows += read_model(run / "recommender" / "results.json", Results).rows
    summaries = {base: summarize(rows, against=base) for base in ("id", "content-knn")}
    claims = [claim(summaries[base], part) for base, part in CLAIMS]
    minutes = (time.perf_counter() - started) / 60
    proof = {
        "rows": [row.content() for row in rows],
        "claims": [entry.content() for entry in claims],
        "hardware": hardware(),
        "minutes": round(minutes, 1),
    }
    write_json(arguments.out / "proof.json", proof)
    text = markdown(summaries["id"], claims, proof, arguments.seeds)
    write_text(arguments.out / "proof.md", text + "\n")
    print(text)
    return 0 if all(entry.low is not None and entry.low > 0 for entry in claims) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-proof"))
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


def claim(summary: Summary, part: str) -> Difference:
    """Difference in AUC of the claimed variant on a slice."""
    wanted = (CHAMPION, part, "auc")
    return next(d for d in summary.differences if (d.variant, d.slice, d.metric) == wanted)


def hardware() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {processor()}, {memory:.0f} GiB, no GPU used"


def processor() -> str:
    """Name of the processor's model, on Linux."""
    page = Path("/proc/cpuinfo")
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def markdown(summary: Summary, claims: list[Difference], proof: dict[str, Any], seeds: int) -> str:
    table = result_lines(summary)
    text = [markdown_table(table, alignment=["---", *["---:"] * (len(table[0]) - 1)])]
    text += ["", f"Mean of seeds 0 to {seeds - 1}; {proof['hardware']}; {proof['minutes']} minutes.", ""]
    for entry in claims:
        text.append(
            f"- {entry.variant} minus {entry.against}, {entry.slice} items: AUC "
            f"{entry.mean:+.4f}, 95 % interval {entry.low:+.4f} to {entry.high:+.4f}"
        )
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
