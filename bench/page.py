"""docs/benchmarks.md from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.frame import COLUMNS, Result

_HEAD = """# Benchmarks

Written by `make bench` and `make growth`; do not edit. Each figure stands beside its reference from
the same run, on the same machine, and the client runs there too. A ratio is the figure by the
reference's. What a target is not met by is said as plainly as what it is met by.
"""


def write_page(page: Path, results: Sequence[Result]) -> None:
    """Write the page: machine and versions once, then a section for each result."""
    parts = [_HEAD, *_about(results), *map(_section, results)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts))


def read_results(folder: Path, names: Sequence[str]) -> list[Result]:
    """Return the results that are there, in the order of `names`."""
    files = [folder / f"{name}.json" for name in names]
    return [Result.read(file) for file in files if file.is_file()]


def _about(results: Sequence[Result]) -> list[str]:
    machines = sorted({result.machine for result in results})
    used: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.versions.items():
            used.setdefault(name, set()).add(version)
    listed = ", ".join(f"{name} {' and '.join(sorted(used[name]))}" for name in sorted(used))
    return [f"- Machine: {'; '.join(machines)}.", f"- Versions: {listed}.", ""]


def _section(result: Result) -> str:
    size = "" if result.size == "usual" else f", {result.size} size"
    command = f"`python bench/{result.name}.py`"
    lines = [
        f"## {result.title}",
        "",
        f"{command}, {result.at}, commit {result.commit}{size}; took {result.took_s:.0f} s.",
        "",
        _line(COLUMNS),
        _line(["---"] * len(COLUMNS)),
        *[_line(row.cells()) for row in result.rows],
        "",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
