"""The import as a Ray Data job: the same result as in one process, whatever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crm.domain.errors import ShardsWarming
from crm.domain.events import LoggedEvent
from crm.services.imports import Patience
from pipelines.chunks import plan
from pipelines.imports import ImportStopped, Stores, import_files
from tests.support.imports import (
    HEADER,
    TRIAL,
    OpenVault,
    RememberingShards,
    a_file,
    a_mapping,
    now,
)

ROWS = 20_000


class Keeper:
    """Keeps what was stored, and kills the first caller once so many calls were stored."""

    def __init__(self, kill_at: int | None) -> None:
        self._shards = RememberingShards()
        self._kill_at = kill_at
        self.killed = 0

    async def append(self, groups: Sequence[Sequence[LoggedEvent]], caller: int) -> Any:
        verdicts = await self._shards.append(groups)
        if self._shards.calls == self._kill_at:
            os.kill(caller, signal.SIGKILL)
            self.killed += 1
        return verdicts

    async def facts(self) -> tuple[int, int, int]:
        return len(self._shards.events), self._shards.total("bet.placed"), self.killed


class KeptShards:
    """The shards of a worker: calls the keeper."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    async def append(self, groups: Sequence[Sequence[LoggedEvent]]) -> Any:
        return await self._keeper.append.remote(groups, os.getpid())


class NeverReady:
    """Shards whose owner never comes back."""

    async def append(self, groups: Sequence[Sequence[LoggedEvent]]) -> Any:
        raise ShardsWarming("the owner of 3 virtual shards is being replaced")


def _file(folder: Path) -> Path:
    lines = [f"player{i % 500},{i % 7 + 1},NA,2020-05-01\n" for i in range(ROWS)]
    return a_file(folder, "bets.csv", HEADER + "".join(lines))


def _stores(open_shards: Any) -> Stores:
    return Stores({"trial": TRIAL}, open_shards, OpenVault, now, Patience(5, 0.01, 0.05))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kill_at", [None, 5])
def test_all_rows_arrive_once_even_when_a_worker_is_killed(
    tmp_path: Path, kill_at: int | None
) -> None:
    import ray

    keeper: Any = ray.remote(num_cpus=0)(Keeper).remote(kill_at)
    stores = _stores(partial(KeptShards, keeper))
    report = import_files(plan([_file(tmp_path)], a_mapping()), stores, tmp_path / "quarantine")
    events, total, killed = ray.get(keeper.facts.remote())
    assert (events, total) == (2 * ROWS, 100 * sum(i % 7 + 1 for i in range(ROWS)))
    assert killed == (0 if kill_at is None else 1)
    assert report.tally.read == ROWS
    assert report.tally.accepted + report.tally.duplicates == ROWS
    if kill_at is None:
        assert report.tally.accepted == ROWS


@pytest.mark.usefixtures("ray_cluster")
def test_shards_that_never_come_back_end_the_import_with_one_sentence(tmp_path: Path) -> None:
    stores = replace(_stores(NeverReady), patience=Patience(0.2, 0.05, 0.1))
    with pytest.raises(ImportStopped, match="being replaced; what was stored so far is safe"):
        import_files(plan([_file(tmp_path)], a_mapping()), stores, tmp_path / "quarantine")
