"""Hostile HTTP requests to `qarm serve` on this machine: `python benchmarks/hostile.py --run runs/demo`.

Starts the service on a loopback port and sends 200 requests: bodies of millions of values, endless and
half-sent bodies, silent connections, picture bombs, what is no HTTP, other hosts and origins. `/healthz` is
asked ten times a second and must answer within 250 ms; the service's memory must stay under 1.5 GB.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from hardening.hostile_http import Attack, Report
from load import LOOPBACK, export, start

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo", help="a finished run")
    parser.add_argument("--bundle", type=Path, help="an exported bundle, instead of --run")
    parser.add_argument("--requests", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qarm-hostile-") as folder:
        bundle = asked.bundle or export(asked.run, Path(folder) / "bundle")
        report, ended = attacked(bundle, asked.requests)
    print(report)
    print(f"exit code {ended}; {'passed' if report.passed and ended == 0 else 'NOT PASSED'}")
    sys.exit(0 if report.passed and ended == 0 else 1)


def attacked(bundle: Path, requests: int) -> tuple[Report, int]:
    """What came of so many requests to a service on a bundle, and its exit code after SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="qarm-hostile-") as folder:
        server, port = start(bundle, Path(folder) / "store", threads=1)
        try:
            report = asyncio.run(Attack(LOOPBACK, port, pid=server.pid).run(requests))
            server.send_signal(signal.SIGTERM)
            return report, server.wait(60)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
