"""Batch features of all players from the lake: our engine on Ray Data, Polars alone, and DuckDB.

    .venv/bin/python bench/batch.py [--quick]

Each engine runs in a process of its own, twice: cold is from its start (imports, Ray) to its first
result on disk, warm is the second. All read the same seeded Parquet files and write Parquet; the
totals are held against each other. The references give each base measure in each window; ours gives
derived values, times and trends on top. Memory is the highest sum of proportional shares (PSS).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import psutil

from bench.batch_totals import columns, duckdb_sql, polars_totals
from bench.environments import PEERS, python_of, version_of
from bench.frame import CLONE, Row, Size, main, times_at_most
from bench.lake import AS_OF, write_lake
from configs.brands import load_brands
from crm.domain.features import FEATURES
from crm.domain.lake_files import LakeFile
from tests.support.ray import prepare_environment, ray_session

BRAND = load_brands(CLONE / "configs" / "brands")["demo"]
EVENTS = 10_000_000
COLD_S = 10.0  # what our engine may take longer than Polars at its first run: Ray starts
SAMPLE_S = 0.5
_MIB = 2**20


@dataclass
class Run:
    """What an engine took: seconds, and MiB at most, of its own and of all its processes."""

    cold_s: float = 0.0
    warm_s: float = 0.0
    tasks_mib: float = 0.0
    all_mib: float = 0.0


def measure(size: Size) -> Iterator[Row]:
    """Compare at one size."""
    yield from compare(200_000 if size == "quick" else EVENTS)


def compare(events: int) -> Iterator[Row]:
    """Write a lake, run the engines one after the other, and check that they agree."""
    # not under var: the lake may be a gigabyte, and goes with the block
    with tempfile.TemporaryDirectory(prefix="crm-lake-") as name:
        folder = Path(name)
        files = write_lake(folder, BRAND, events)
        (folder / "files.json").write_text(json.dumps(files))
        (folder / "query.sql").write_text(duckdb_sql(BRAND, AS_OF))
        (folder / "paths.json").write_text(json.dumps(_paths(folder, files)))
        polars = _run(_ourselves("polars", folder), _is_any)
        duckdb = _run(_duckdb(folder), _is_any)
        ours = _run(_ourselves("ours", folder), _is_task)
        players = _check(folder)
    yield from _rows(sum(file.events for file in files), players, ours, polars, duckdb)


def _rows(events: int, players: int, ours: Run, polars: Run, duckdb: Run) -> Iterator[Row]:
    what = f"{events:,} events, {players:,} players"
    note = f"{len(FEATURES)} columns; the references give {len(columns())}, and these agree"
    warm, cold = times_at_most(1.2), times_at_most(1.2 + COLD_S / polars.cold_s)
    seconds, peak = "s", "MiB"
    yield Row(f"{what}: warm", ours.warm_s, seconds, "Polars alone", polars.warm_s, (warm,), note)
    yield Row(f"{what}: warm", ours.warm_s, seconds, "DuckDB", duckdb.warm_s)
    yield Row(f"{what}: cold, Ray's start with it", ours.cold_s, seconds, "Polars alone",
              polars.cold_s, (cold,), f"target: 1.2 x + {COLD_S:.0f} s")  # fmt: skip
    yield Row(f"{what}: peak memory of the tasks", ours.tasks_mib, peak, "Polars alone",
              polars.all_mib, (times_at_most(1),),
              f"all of Ray's processes and the driver: {ours.all_mib:,.0f} MiB")  # fmt: skip
    yield Row(f"{what}: peak memory of the tasks", ours.tasks_mib, peak, "DuckDB", duckdb.all_mib)


# --- running an engine ---------------------------------------------------------------------------


def _run(command: Sequence[str | Path], is_task: Callable[[str], bool]) -> Run:
    """Run an engine that tells a JSON line after each of its two runs."""
    run, began = Run(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watching = threading.Thread(target=_watch_memory, args=(process, is_task, run))
    watching.start()
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(json.loads(line)["took_s"])
        if len(said) == 1:
            run.cold_s = time.perf_counter() - began
    watching.join()
    if process.wait() or len(said) != 2:
        raise SystemExit(f"failed: {command}")
    run.warm_s = said[1]
    return run


def _watch_memory(process: subprocess.Popen[str], is_task: Callable[[str], bool], run: Run) -> None:
    root = psutil.Process(process.pid)
    while process.poll() is None:
        tasks = everything = 0.0
        with suppress(psutil.NoSuchProcess):
            for each in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error, FileNotFoundError):
                    mib = each.memory_full_info().pss / _MIB
                    everything += mib
                    tasks += mib if is_task(" ".join(each.cmdline())) else 0
        run.tasks_mib, run.all_mib = max(run.tasks_mib, tasks), max(run.all_mib, everything)
        time.sleep(SAMPLE_S)


def _is_any(_title: str) -> bool:
    return True


def _is_task(title: str) -> bool:
    return title.startswith("ray::")


def _ourselves(engine: str, folder: Path) -> list[str | Path]:
    return [sys.executable, Path(__file__), "--engine", engine, folder]


def _duckdb(folder: Path) -> list[str | Path]:
    script = PEERS / "duckdb" / "totals.py"
    files = [folder / "query.sql", folder / "paths.json", folder / "duckdb.parquet"]
    return [python_of("duckdb"), script, *files]


def _paths(folder: Path, files: Sequence[LakeFile]) -> list[str]:
    return [str(folder / file.name) for file in files]


def _check(folder: Path) -> int:
    """Raise SystemExit unless the engines' totals are the same; return how many players."""
    found = {
        "ours": _checksums(str(folder / "features" / "part-*.parquet")),
        "Polars": _checksums(str(folder / "polars.parquet")),
        "DuckDB": _checksums(str(folder / "duckdb.parquet")),
    }
    if len(set(found.values())) != 1:
        raise SystemExit("the engines' totals differ")
    return found["ours"][0]


def _checksums(files: str) -> tuple[int, ...]:
    """Return the players, and of each column the sum of its values, each by its player."""
    weight = (pl.col("player_id").hash(seed=1) % 1_009).cast(pl.Int64)
    sums = [(pl.col(c.name) * weight).sum().alias(c.name) for c in columns()]
    return pl.scan_parquet(files).select(pl.len(), *sums).collect(engine="streaming").row(0)


# --- an engine, in its own process ---------------------------------------------------------------


def _twice(build: Callable[[], object]) -> None:
    for _ in range(2):
        began = time.perf_counter()
        build()
        print(json.dumps({"took_s": time.perf_counter() - began}), flush=True)


def _polars(folder: Path) -> None:
    paths = json.loads((folder / "paths.json").read_text())

    def build() -> None:
        found = polars_totals(paths, BRAND, AS_OF)
        found.write_parquet(folder / "polars.parquet", compression="zstd", compression_level=1)

    _twice(build)


def _ours(folder: Path) -> None:
    prepare_environment()
    from pipelines.features import Request, build_on_ray, parts_of

    files = [LakeFile(*file) for file in json.loads((folder / "files.json").read_text())]
    parts = parts_of(Request(BRAND, AS_OF, known_by=AS_OF), str(folder), files, "features")
    with ray_session():  # with as many logical CPUs as the service has
        _twice(lambda: deque(build_on_ray(parts), maxlen=0))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engine"]:
        {"polars": _polars, "ours": _ours}[sys.argv[2]](Path(sys.argv[3]))
    else:
        main(
            "batch",
            "Batch features from the lake",
            measure,
            partial(version_of, "duckdb", "duckdb"),
        )
