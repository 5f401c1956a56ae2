"""All benchmarks, one after the other, each in a process of its own; then docs/benchmarks.md.

    python -m bench [NAME...] [--quick]

A name runs that benchmark alone; the page keeps what the others found last. One that fails is told,
and the others run. Quick results and their page go to var/bench/quick.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.frame import CLONE, results_of
from bench.page import read_results, write_page

USUAL = (
    "ingest",
    "feature_read",
    "segments",
    "entries",
    "live",
    "batch",
    "restart",
    "memory",
    "rules",
    "cluster_search",
    "predictions",
    "scores",
)
ALL = (*USUAL, "growth")


def main() -> int:
    """Run, write the page, and return how many benchmarks failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=USUAL, metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--quick", action="store_true", help="small sizes: do they run at all?")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(ALL):
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))} (there are: {', '.join(ALL)})"
        )
    failed = [name for name in asked.names if not _ran(name, quick=asked.quick)]
    folder = results_of("quick" if asked.quick else "usual")
    page = folder / "benchmarks.md" if asked.quick else CLONE / "docs" / "benchmarks.md"
    write_page(page, read_results(folder, ALL))
    print(f"written: {page.relative_to(CLONE)}")
    if failed:
        sys.stderr.write(f"error: failed: {', '.join(failed)}\n")
    return len(failed)


def _ran(name: str, *, quick: bool) -> bool:
    command = [sys.executable, str(CLONE / "bench" / f"{name}.py"), *["--quick"] * quick]
    sys.stderr.write(f"--- {name}\n")
    return subprocess.run(command, cwd=CLONE, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
