"""The table of a run's fault experiments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from statistics import median_low

from tests.support.balance import Balance

_HEAD = (
    "experiment", "fault", "attempted", "acknowledged", "lost", "duplicated", "refused",
    "recovered (s)", "control",
)  # fmt: skip
Cells = tuple[str, ...]


@dataclass
class FaultTable:
    """A row an experiment; controls are those mechanisms whose absence was noticed."""

    _rows: list[tuple[str, str, Balance]] = field(default_factory=list)
    _controls: dict[str, list[str]] = field(default_factory=dict)

    def add(self, experiment: str, fault: str, balance: Balance) -> None:
        """Note an experiment, such as E1."""
        self._rows.append((experiment, fault, balance))

    def control(self, experiment: str, mechanism: str, sign: str, faults: list[str]) -> None:
        """Note that a mechanism was off; AssertionError if no fault that was found matches `sign`.

        Any fault would not do: a client that has lost patience says little.
        """
        assert any(re.search(sign, fault) for fault in faults), (
            f"{experiment} does not notice that there is no {mechanism}: it finds {faults}"
        )
        self._controls.setdefault(experiment, []).append(mechanism)

    def lines(self) -> list[str]:
        """Return the table; nothing without a row."""
        names = {name: None for name, _, _ in self._rows} | dict.fromkeys(self._controls)
        rows = [cells for name in sorted(names, key=_number) for cells in self._of(name)]
        if not rows:
            return []
        widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
        table = [_HEAD, tuple("-" * width for width in widths), *rows]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]

    def _of(self, experiment: str) -> list[Cells]:
        found = self._controls.get(experiment, [])
        control = f"noticed: no {', no '.join(found)}" if found else "not run"
        rows = [_cells(*row) for row in self._rows if row[0] == experiment]
        first, *rest = rows or [(experiment, "not run", *[""] * 6)]
        return [(*first, control), *[(*cells, "") for cells in rest]]


def _number(experiment: str) -> tuple[int, str]:
    digits = experiment.lstrip("E")
    return (int(digits) if digits.isdigit() else 0, experiment)


def _cells(experiment: str, fault: str, balance: Balance) -> Cells:
    taken = sorted(after_s for _, after_s in balance.recoveries_s)
    recovered = f"{median_low(taken):.1f}, at most {taken[-1]:.1f}" if taken else ""
    figures = (
        balance.attempted, len(balance.acknowledged), balance.lost, balance.duplicated,
        balance.stale_refusals,
    )  # fmt: skip
    return (experiment, fault, *[f"{figure:,}" for figure in figures], recovered)
