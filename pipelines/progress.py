"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 5.0


@contextmanager
def progress(
    total: int, what: str, unit: str = "rows", *, terminal: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Show progress over `total` units; call what is yielded with each number of them done."""
    if sys.stderr.isatty() if terminal is None else terminal:
        with _bar(total, what, unit) as advance:
            yield advance
    else:
        yield _lines(total, what, unit)


@contextmanager
def _bar(total: int, what: str, unit: str) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    rate = _Rate()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(rows: int) -> None:
            bar.update(task, advance=rows, rate=f"{rate.add(rows):,.0f} {unit}/s")

        yield advance


def _lines(total: int, what: str, unit: str) -> Callable[[int], None]:
    rate = _Rate()
    due = LINE_EVERY_S

    def advance(rows: int) -> None:
        nonlocal due
        per_second = rate.add(rows)
        if rate.elapsed_s >= due:
            due = rate.elapsed_s + LINE_EVERY_S
            line = f"{what}: {rate.done:,} of {total:,} {unit}, {per_second:,.0f} {unit}/s"
            sys.stderr.write(line + "\n")

    return advance


class _Rate:
    def __init__(self) -> None:
        self._start = time.monotonic()
        self.done = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def add(self, rows: int) -> float:
        self.done += rows
        return self.done / max(self.elapsed_s, 1e-6)
