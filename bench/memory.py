"""Memory of the shard owners' tables, beside a dense frame of float64 columns in pandas.

    .venv/bin/python bench/memory.py [--quick]

Each size is filled in a process of its own: 10 % of the players are active in a week (others each
week, so that about 38 % are within 90 days), day by day, with the clock going along. A non-zero
cell is a base measure of a player in a window that is not 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import psutil

from bench.frame import CLONE, Row, Size, at_most, main
from configs.brands import load_brands
from crm.domain.event_columns import KIND_INDEX, EventColumns, Kind
from crm.domain.feature_table import FeatureTable
from crm.domain.features import FEATURES, MEASURES, WINDOWS
from crm.domain.segments import compile_mask, parse
from crm.domain.shards import SHARDS, shard_of

BRAND = load_brands(CLONE / "configs" / "brands")["demo"]
PLAYERS = (100_000, 250_000, 1_000_000)
FRAME_PLAYERS = 100_000
BYTES = 1_000  # a player: the goal
DAYS = 91
ACTIVE_A_DAY = 0.016  # of all players; with FAVOURED about 10 % in a week and 38 % in 90 days
FAVOURED = 0.40
EVENTS_A_DAY = 8  # of an active player
CHUNK = 20_000
NOW_US = 1_773_144_000_000_000  # 2026-03-10 12:00 UTC
DAY_US = 86_400_000_000
_KINDS = [
    Kind("session.started"),
    Kind("bet.placed", product="casino"), Kind("bet.placed", product="live"),
    Kind("bet.settled", "won", "casino"), Kind("bet.settled", "lost", "live"),
    Kind("bet.placed", product="sports"), Kind("deposit.completed", method="card"),
    Kind("session.ended"),
]  # fmt: skip
RULE = (
    "deposit_amount_30d >= 50 and days_since_last_bet > 3 and bet_count_90d >= 5"
    " and stake_amount_lifetime > 100 and ggr_amount_30d > 0 and session_count_7d < 20"
)


@dataclass(frozen=True)
class Table:
    """What a table of so many players is and takes; bytes, seconds."""

    players: int
    events: int
    nbytes: int
    resident: int
    cells: int
    active_week: float
    fill_s: float
    load_s: float
    mask_s: float
    snapshot_bytes: int


def measure(size: Size) -> Iterator[Row]:
    """Measure each size."""
    dense = _dense_frame_bytes(2_000 if size == "quick" else FRAME_PLAYERS)
    reference = f"pandas, {len(FEATURES)} float64 columns"
    for players in (5_000,) if size == "quick" else PLAYERS:
        table = table_of(players)
        what = f"{players:,} players"
        note = f"{table.events:,} events, {table.active_week:.0%} of the players active in 7 days"
        yield Row(f"{what}: a player", table.nbytes / players, "bytes", reference, dense,
                  (at_most(BYTES),), note)  # fmt: skip
        yield Row(f"{what}: a player, resident with ids", table.resident / players, "bytes",
                  reference, dense)  # fmt: skip
        yield Row(f"{what}: a non-zero cell", table.nbytes / table.cells, "bytes",
                  note=f"{table.cells / players:.1f} cells a player")  # fmt: skip


def table_of(players: int) -> Table:
    """Fill a table of so many players in a process of its own."""
    command = [sys.executable, __file__, "--players", str(players)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Table(**json.loads(said.stdout.splitlines()[-1]))


def _dense_frame_bytes(players: int) -> float:
    """Bytes a player of a frame with every feature, a row a player by id."""
    import pandas as pd

    ids = [f"player-{n}" for n in range(players)]
    frame = pd.DataFrame(np.zeros((players, len(FEATURES))), index=ids, columns=list(FEATURES))
    return float(frame.memory_usage(index=True, deep=True).sum()) / players


# --- a table, in its own process -----------------------------------------------------------------


def _fill(players: int) -> None:
    ids = [f"player-{n}" for n in range(players)]
    shards = np.array([shard_of(BRAND.id, player) for player in ids])
    before = psutil.Process().memory_info().rss  # ids and shards are the measurement's own
    began = time.perf_counter()
    table = FeatureTable(BRAND.zone, NOW_US - DAYS * DAY_US)
    events = live(table, ids, shards, NOW_US)
    fill_s = time.perf_counter() - began
    resident = psutil.Process().memory_info().rss - before
    rule = parse(RULE)
    mask_s = _best_of(5, lambda: compile_mask(rule, BRAND, table, players))
    load_s, snapshot_bytes = _load_again(table)
    found = Table(
        players, events, table.nbytes, resident, _cells(table), _active(table), fill_s, load_s,
        mask_s, snapshot_bytes,
    )  # fmt: skip
    print(json.dumps(asdict(found)))


def live(table: FeatureTable, ids: list[str], shards: np.ndarray, now_us: int) -> int:
    """Register everybody, then let DAYS pass until now; returns how many events there were."""
    rng = np.random.default_rng(1)
    everybody = np.arange(len(ids))
    registered, kinds = _indexes([Kind("player.registered")]), _indexes(_KINDS)
    # long ago: windows never give back the room of a day on which everybody did something
    events = _apply(table, ids, shards, everybody, registered, table.now_us - 100 * DAY_US)
    favoured = rng.permutation(len(ids))[: int(FAVOURED * len(ids))]
    for day in range(DAYS):
        table.advance(now_us - (DAYS - 1 - day) * DAY_US)
        active = rng.choice(favoured, int(ACTIVE_A_DAY * len(ids)), replace=False)
        events += _apply(table, ids, shards, active, kinds, table.now_us)
    return events


def _indexes(kinds: Sequence[Kind]) -> np.ndarray:
    return np.array([KIND_INDEX[kind] for kind in kinds])


def _apply(
    table: FeatureTable,
    ids: list[str],
    shards: np.ndarray,
    who: np.ndarray,
    kinds: np.ndarray,
    until_us: int,
) -> int:
    """Let every player in `who` do each of `kinds` in the 8 hours before; booked in chunks."""
    rng = np.random.default_rng(len(who))
    for start in range(0, len(who), CHUNK // len(kinds)):
        players = np.repeat(who[start : start + CHUNK // len(kinds)], len(kinds))
        at = until_us - rng.integers(0, DAY_US // 3, len(players))
        amounts = rng.integers(1, 10_000, len(players))
        columns = EventColumns(
            (), [ids[player] for player in players.tolist()], shards[players],
            np.tile(kinds, len(players) // len(kinds)), amounts, amounts % 3_600, at,
            at // DAY_US + 719_163,
        )  # fmt: skip
        table.apply(columns)
    return len(who) * len(kinds)


def _load_again(table: FeatureTable) -> tuple[float, int]:
    """Return the seconds in which a new table takes in all shards, and the bytes of the slices."""
    new, load_s, size = FeatureTable(BRAND.zone, table.now_us), 0.0, 0
    for shard in range(SHARDS):
        part = table.export(shard)
        size += sum(len(v) for v in (part.lifetime, part.first, part.last, part.once, part.days))
        began = time.perf_counter()
        new.load(shard, part)
        load_s += time.perf_counter() - began
    assert len(new) == len(table)
    return load_s, size


def _cells(table: FeatureTable) -> int:
    names = [f"{measure.name}_{window}" for measure in MEASURES for window in WINDOWS]
    return sum(int(np.count_nonzero(table.column(n)[0])) for n in names if n in FEATURES)


def _active(table: FeatureTable) -> float:
    return float(np.count_nonzero(table.column("active_days_7d")[0]) / len(table))


def _best_of(times: int, call: Callable[[], object]) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--players"]:
        _fill(int(sys.argv[2]))
    else:
        main("memory", "Memory of the shard owners' tables", measure)
