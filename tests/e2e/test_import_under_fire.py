"""An import of a small brand under fire; tests/chaos has the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.instance import an_instance
from tests.support.under_fire import Fire, import_under_fire, show


@pytest.mark.slow
async def test_killed_owners_and_replicas_lose_nothing_and_count_nothing_twice(
    tmp_path: Path,
) -> None:
    with an_instance() as instance:
        balance = await import_under_fire(instance, tmp_path, Fire(players=110, days=60, kills=2))
    show(balance)
    assert balance.faults() == []
