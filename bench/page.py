"""docs/benchmarks.md from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.frame import COLUMNS, Result

_HEAD = """# Benchmarks

Written by `make bench` and `make growth`; do not edit. Each figure stands beside its reference from
the same run, on the same machine, and the client runs there too. A ratio is the figure by the
reference's.
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
    return [
        f"- Machine: {'; '.join(machines)}.",
        f"- Versions: {listed}.",
        f"- {_targets(results)}",
        "",
    ]


def _targets(results: Sequence[Result]) -> str:
    """Say how many targets are met, and name those that are not."""
    judged = [row for result in results for row in result.rows if row.met is not None]
    missed = [row.what for row in judged if not row.met]
    found = f"Targets: {len(judged) - len(missed)} of {len(judged)} are met"
    return f"{found}; not met: {'; '.join(missed)}." if missed else f"{found}."


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
