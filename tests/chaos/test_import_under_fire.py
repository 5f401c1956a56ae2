"""An import of a million events under fire: owners and replicas are killed, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fault_table import FaultTable
from tests.support.instance import an_instance
from tests.support.under_fire import Fire, import_under_fire

FIRE = Fire(players=2_400, days=100, kills=10, seed=11)


@pytest.mark.long
async def test_a_million_events_are_imported_while_owners_and_replicas_are_killed(
    tmp_path: Path, table: FaultTable
) -> None:
    with an_instance() as instance:
        balance = await import_under_fire(instance, tmp_path, FIRE)
    table.add("E1", "owners and replicas killed during an import", balance)
    assert balance.faults() == []
