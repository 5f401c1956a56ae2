"""The import job: Ray Data reads the rows once, in order, and a pool of actors stores them.

Reading stays on the driver's machine, where the files are. Ray Data bounds what is in memory, runs
the tasks of a killed worker again (what it had stored is a duplicate then), and adds actors where
there are processors. Also `python -m pipelines.imports FILE... --mapping MAP.yaml`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from configs.brands import load_brands
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.postgres.brands import registered
from crm.adapters.postgres.live import open_jobs
from crm.adapters.rates import load_rates
from crm.adapters.vault import open_vault
from crm.domain.brands import Brand
from crm.domain.errors import BrandChanged, CrmError
from crm.domain.events import Door, Vault
from crm.domain.ports import FeatureShards
from crm.domain.rates import Rates
from crm.services.imports import Chunk, Importer, Outcome, Patience, Tally
from pipelines.chunks import Plan, choose_brand, load_mapping, plan
from pipelines.job_progress import OpenJobs, job_progress
from pipelines.progress import progress
from pipelines.quarantine import write_quarantine
from pipelines.rows import open_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

STORERS = 2
BLOCK_BYTES = 1 << 20  # about ten chunks: the unit that is sent, stored and, after a kill, repeated
SHOWN_LINES = 10


class ImportStopped(CrmError):
    """An import could not go on; what it stored is safe, and is a duplicate next time."""

    code = "import_stopped"


@dataclass(frozen=True)
class Stores:
    """What rows are stored through; everything here travels to the workers, and is opened there."""

    brands: Mapping[str, Brand]
    open_shards: Callable[[], FeatureShards]
    open_vault: Callable[[], Vault]
    clock: Callable[[], datetime]
    patience: Patience = field(default_factory=Patience)
    rates: Rates = field(default_factory=Rates)
    open_jobs: OpenJobs | None = None

    def importer(self, planned: Plan) -> Importer:
        """Open them in this process; call it within an event loop."""
        door = Door(self.brands, self.open_vault(), self.rates)
        return Importer(self.open_shards(), door, planned.bound(), self.clock, self.patience)


Execute = Callable[[Plan, Stores], Iterator[Outcome]]


@dataclass(frozen=True)
class Report:
    """The end of an import: the sums, and where the rejected rows are."""

    files: tuple[Path, ...]
    tally: Tally
    quarantine: Path | None

    def as_json(self) -> dict[str, Any]:
        """Return the contract's report."""
        tally = self.tally
        return {
            "read": tally.read,
            "accepted": tally.accepted,
            "duplicates": tally.duplicates,
            "filtered": tally.filtered,
            "rejected": tally.rejected,
            "rejected_by_reason": tally.rejected_by_reason(),
            "quarantine": None if self.quarantine is None else str(self.quarantine),
            "events": tally.events,
        }

    def as_text(self) -> str:
        """Return the report for a person, with the first lines of each reason and the doubtful."""
        tally = self.tally
        summary = (
            f"read {tally.read:,} rows: {tally.accepted:,} accepted ({tally.events:,} new events),"
            f" {tally.duplicates:,} duplicates, {tally.filtered:,} filtered,"
            f" {tally.rejected:,} rejected"
        )
        lines = [summary]
        first = tally.first_lines()
        for code, count in tally.rejected_by_reason().items():
            places = ", ".join(self._place(file, line) for file, line in first[code])
            more = ", ..." if count > len(first[code]) else ""
            lines.append(f"  {code}: {count:,} (line {places}{more})")
        for file in range(len(self.files)):
            lines += self._doubtful(file)
        if self.quarantine is not None:
            lines.append(f"rejected rows: {self.quarantine} (mend them and import that file)")
            lines.append(f"their reasons: {self.quarantine}.reasons.jsonl")
        return "\n".join(lines)

    def _doubtful(self, file: int) -> list[str]:
        doubtful = self.tally.doubtful(file)
        if not doubtful:
            return []
        places = ", ".join(self._place(file, line) for line in doubtful[:SHOWN_LINES])
        more = ", ..." if len(doubtful) > SHOWN_LINES else ""
        warning = (
            f"warning: {len(doubtful):,} rows were kept whose player id looks like a number from a"
            f" spreadsheet (line {places}{more})"
        )
        return [warning]

    def _place(self, file: int, line: int) -> str:
        return str(line) if len(self.files) == 1 else f"{self.files[file].name}:{line}"


def stores_of(settings: Settings, planned: Plan) -> Stores:
    """Return the running service's stores; raises BrandChanged for a brand that is new to it."""
    from actors.gateway import connect  # imports Ray: a wrong mapping is told before

    configured = load_brands(settings.brands_dir)
    brands = asyncio.run(registered(str(settings.postgres.dsn), configured))
    constant = planned.mapping.constant_brand
    if constant is not None and constant not in brands:
        raise BrandChanged(
            f"brand {constant!r} is new or changed since the service started: run `crm apply`"
        )
    return Stores(
        brands,
        partial(connect, settings, brands),
        partial(open_vault, Path(str(settings.vault.key_file))),
        clock.now,
        rates=load_rates(settings.rates_file, brands.values()),
        open_jobs=partial(open_jobs, str(settings.postgres.dsn)),
    )


def import_files(
    planned: Plan, stores: Stores, quarantine_dir: Path, execute: Execute | None = None
) -> Report:
    """Import what was planned, with progress on stderr; raises CrmError where it cannot go on."""
    tally = Tally(len(planned.files))
    mapping = planned.mapping
    what = f"importing {mapping.source} ({len(planned.files)} files)"
    brand = mapping.constant_brand
    job = job_progress(stores.open_jobs, "import", what, planned.total, "rows", brand)
    with job as told, progress(planned.total, "importing") as advance:
        for outcome in (execute or on_ray)(planned, stores):
            tally.add(outcome)
            advance(outcome.read)
            told.advance(outcome.read)
    rows = [open_rows(file, planned.mapping.format, planned.columns) for file in planned.files]
    quarantine = write_quarantine(planned.files, rows, tally, quarantine_dir, stores.clock())
    return Report(planned.files, tally, quarantine)


def on_ray(planned: Plan, stores: Stores) -> Iterator[Outcome]:
    """Store all rows on the Ray cluster that this process is connected to."""
    decoder = msgspec.msgpack.Decoder(Outcome)
    dataset = _dataset(planned, stores)
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        columns = cast("pa.Table", table).to_pydict()
        for packed, stopped in zip(columns["outcome"], columns["stopped"], strict=True):
            if stopped is not None:
                raise ImportStopped(
                    f"{stopped}; what was stored so far is safe: run the same import again"
                )
            yield decoder.decode(packed)


def _dataset(planned: Plan, stores: Stores) -> Dataset:
    import ray.data  # 2 s that a wrong mapping need not wait for

    from pipelines.chunk_source import ChunkSource

    # a small file keeps only one of the storers busy
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # our report says it all
    dataset: Dataset = ray.data.read_datasource(ChunkSource(planned), num_cpus=0.5)
    dataset.context.target_max_block_size = BLOCK_BYTES
    dataset.context.enable_progress_bars = False
    return dataset.map_batches(
        StoreChunks,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(planned, stores),
        compute=ray.data.ActorPoolStrategy(size=STORERS),
        num_cpus=0.5,
    )


class StoreChunks:
    """Ray Data's stateful step: keeps the stores open, stores a block of chunks a call."""

    def __init__(self, planned: Plan, stores: Stores) -> None:
        self._runner = asyncio.Runner()
        self._open = partial(_opened, stores, planned)
        self._importer: Importer | None = None
        self._decoder = msgspec.msgpack.Decoder(Chunk)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Store `chunk` (packed); returns `outcome` (packed), or why the import has to stop."""
        import pyarrow as pa

        packed: list[bytes | None]
        try:
            outcomes = self._runner.run(self._store(table["chunk"].to_pylist()))
            packed, stopped = [msgspec.msgpack.encode(outcome) for outcome in outcomes], None
        except CrmError as error:
            # as data: Ray Data would print an error's whole way through it on the terminal
            packed, stopped = [None], error.message
        reasons = pa.array([stopped] * len(packed), pa.string())
        return pa.table({"outcome": pa.array(packed, pa.binary()), "stopped": reasons})

    async def _store(self, packed: Iterable[bytes]) -> list[Outcome]:
        if self._importer is None:
            self._importer = await self._open()
        return await self._importer.store(map(self._decoder.decode, packed))


async def _opened(stores: Stores, planned: Plan) -> Importer:
    return stores.importer(planned)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the import on RAY_ADDRESS's cluster; the report is the last line of stdout."""
    import ray

    parser = argparse.ArgumentParser(prog="python -m pipelines.imports")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--mapping", required=True, type=Path)
    parser.add_argument("--brand")
    options = parser.parse_args(arguments)
    settings = load_settings()
    try:
        brands = load_brands(settings.brands_dir)
        planned = plan(
            options.files, choose_brand(load_mapping(options.mapping), brands, options.brand)
        )
        ray.init("auto", namespace="crm", log_to_driver=False)
        report = import_files(
            planned, stores_of(settings, planned), settings.var_dir / "quarantine"
        )
    except (CrmError, ConnectionError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stderr.write(report.as_text() + "\n")
    sys.stdout.write(msgspec.json.encode(report.as_json()).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
