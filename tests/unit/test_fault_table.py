"""The table of fault experiments says what was run, and what was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.support.balance import Balance
from tests.support.fault_table import FaultTable

BALANCE = Balance(
    acknowledged=frozenset("abc"), stored=Counter("ab"), sent={}, live={}, attempted=1_200,
    stale_refusals=7, recoveries_s=[("owner", 2.0), ("owner", 1.0), ("owner", 4.0)],
)  # fmt: skip


def test_a_row_has_the_figures_of_its_balance_and_the_controls_of_its_experiment() -> None:
    table = FaultTable()
    table.add("E10", "later", replace(BALANCE, recoveries_s=[]))
    table.add("E1", "a kill", BALANCE)
    table.control("E1", "replay", "lost", ["2 events lost"])
    _, _, first, second = table.lines()
    assert first.split("  ")[0] == "E1"
    for figure in ("a kill", "1,200", "3", "1", "7", "2.0, at most 4.0", "noticed: no replay"):
        assert figure in first
    assert second.startswith("E10")
    assert second.endswith("not run")  # its control


def test_an_experiment_whose_control_alone_was_run_is_shown_as_not_run() -> None:
    table = FaultTable()
    table.control("E2", "deduplication", "twice", ["2 stored twice"])
    (line,) = table.lines()[2:]
    assert line.startswith("E2")
    assert "not run" in line


@pytest.mark.parametrize("found", [[], ["not within 5 s: a batch is taken"]])
def test_a_mechanism_whose_absence_is_not_noticed_is_a_failure(found: list[str]) -> None:
    with pytest.raises(AssertionError, match="E1 does not notice that there is no replay"):
        FaultTable().control("E1", "replay", "events lost", found)


def test_without_experiments_there_is_no_table() -> None:
    assert FaultTable().lines() == []
