"""An import of a million events under fire: owners and replicas are killed, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.instance import an_instance
from tests.support.under_fire import Fire, import_under_fire, show

FIRE = Fire(players=2_400, days=100, kills=10, seed=11)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_a_million_events_are_imported_while_owners_and_replicas_are_killed(
    tmp_path: Path,
) -> None:
    with an_instance() as instance:
        balance = await import_under_fire(instance, tmp_path, FIRE)
    show(balance)
    assert balance.faults() == []
