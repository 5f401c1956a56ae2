"""Batch features: every player of a brand as of any past moment, on Ray Data over the lake.

Each task takes the files of a few virtual shards; players never leave their shard, so nothing is
shuffled. Also `python -m pipelines.features --as-of T`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from configs.brands import load_brands
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.lake import Lake
from crm.adapters.lake_events import LakeEventFiles, scan
from crm.adapters.postgres.facts import PostgresFacts
from crm.adapters.postgres.feature_builds import PostgresFeatureBuilds
from crm.adapters.postgres.lake import PostgresManifest
from crm.adapters.postgres.pool import Pool
from crm.domain.brands import Brand, choose
from crm.domain.errors import CrmError
from crm.domain.facts import Body, NewFact
from crm.domain.feature_list import features_of
from crm.domain.lake_files import LakeFile
from crm.domain.shards import SHARDS
from crm.services.lake_writing import LakeWriter
from crm.services.player_features import rfc3339
from pipelines.batch_features import features_at, labels_after
from pipelines.progress import progress

if TYPE_CHECKING:
    from ray.data import Dataset

SHARDS_A_TASK = 8
UNDER_WAY = timedelta(days=1)
ABOUT = "features.json"  # what a folder of features says of itself


class CannotBuild(CrmError):
    """The features that were asked for cannot be built; the message says why."""

    code = "cannot_build"


@dataclass(frozen=True)
class Request:
    """What to build: features as of `as_of`, of what was known by `known_by`.

    With `label_days` also what the players did in so many days after `as_of`, as far as is known
    today: a training set.
    """

    brand: Brand
    as_of: datetime
    known_by: datetime
    label_days: int | None = None

    @classmethod
    def of(
        cls, brand: Brand, as_of: str, known_by: str | None, label_days: int | None, now: datetime
    ) -> Request:
        """Read what was asked; raises CannotBuild. A date is its 00:00 UTC, `now` is now."""
        at = _moment(as_of, "--as-of")
        known = now if known_by == "now" else _moment(known_by or as_of, "--known-by")
        request = cls(brand, at, known, label_days)
        request.check(now)
        return request

    def check(self, now: datetime) -> None:
        """Raise CannotBuild for moments that are not past yet."""
        if self.as_of > now:
            raise CannotBuild(f"--as-of {rfc3339(self.as_of)} is not past yet")
        if self.as_of < self.brand.begins_at:
            raise CannotBuild(f"brand {self.brand.id} began on {self.brand.starts_on}")
        if self.label_days is not None and timedelta(days=self.label_days) > now - self.as_of:
            raise CannotBuild(
                f"{self.label_days} days after {rfc3339(self.as_of)} are not past yet: what the"
                " players will do is not known"
            )


def _moment(text: str, option: str) -> datetime:
    """Return a moment in UTC."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{option}: a date or time, such as 2026-03-01T12:00Z, not {text!r}"
        raise CannotBuild(message) from None


@dataclass(frozen=True)
class Part:
    """One task: the files of some shards, and where their features go."""

    request: Request
    lake_uri: str
    files: Sequence[LakeFile]
    name: str

    def build(self) -> int:
        """Write the features of these shards' players; return how many players."""
        lake, request = Lake(self.lake_uri), self.request
        events = scan(lake, self.files)
        found = features_at(events, request.brand, request.as_of, request.known_by)
        if request.label_days is not None:
            found = labels_after(events, request.brand, request.as_of, request.label_days, found)
        out = pa.BufferOutputStream()
        pq.write_table(found, out, compression="zstd")
        lake.write(self.name, out.getvalue().to_pybytes())
        return int(found.num_rows)


@dataclass(frozen=True)
class Built:
    """A finished build: a folder of the lake, current for its brand; `events` were looked at."""

    folder: str
    players: int
    events: int
    features: int

    def as_json(self) -> dict[str, Any]:
        """Return the report of a command."""
        return {"folder": self.folder, "players": self.players, "events": self.events,
                "features": self.features}  # fmt: skip


def build(settings: Settings, request: Request, out: Path | None = None) -> Built:
    """Build on the Ray cluster that this process is connected to, and make it the current build.

    `out`, a new folder on this machine, gets a copy. Raises CannotBuild, DatabaseAway, OSError.
    """
    request.check(clock.now())
    if out is not None and out.exists():
        raise CannotBuild(f"{out} is there already: name a new folder")
    lake_uri = str(settings.lake.uri)
    files = asyncio.run(all_in_the_lake(settings))
    folder = f"features/{request.brand.id}/{clock.now():%Y%m%dT%H%M%S%f}"
    parts = parts_of(request, lake_uri, files, folder)
    players = 0
    with progress(len(parts), f"building features of {request.brand.id}", "parts") as advance:
        for found in build_on_ray(parts):
            players += found
            advance(1)
    events = sum(file.events for file in files)
    about = _about(request, players, events)
    Lake(lake_uri).write(f"{folder}/{ABOUT}", json.dumps(about, indent=1).encode())
    kept = asyncio.run(_make_current(settings, request, folder, players))
    _delete_all_but(Lake(lake_uri), kept)
    if out is not None:
        _copy(Lake(lake_uri), folder, out)
    return Built(folder, players, events, len(about["features"]))


async def all_in_the_lake(settings: Settings) -> list[LakeFile]:
    """Bring the lake up to the log, and return its files."""
    pool = Pool(str(settings.postgres.direct_dsn), most=1)
    try:
        manifest = PostgresManifest(pool)
        files = LakeEventFiles(Lake(str(settings.lake.uri)))
        await LakeWriter(manifest, files, clock.now).catch_up()
        return await manifest.files(range(SHARDS))
    finally:
        await pool.close()


def parts_of(request: Request, lake_uri: str, files: Sequence[LakeFile], folder: str) -> list[Part]:
    """Divide the files among tasks, each shard's into one."""
    by_task: dict[int, list[LakeFile]] = {}
    for file in files:
        by_task.setdefault(file.shard // SHARDS_A_TASK, []).append(file)
    return [
        Part(request, lake_uri, of_task, f"{folder}/part-{number:03d}.parquet")
        for number, of_task in sorted(by_task.items())
    ]


def build_on_ray(parts: Sequence[Part]) -> Iterator[int]:
    """Build every part; yields the players of each when it is done."""
    if not parts:  # no event was ever taken in
        return
    import ray.data  # 2 s that a wrong question need not wait for

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset: Dataset = ray.data.from_items([{"part": n} for n in range(len(parts))])
    dataset.context.enable_progress_bars = False
    built = dataset.repartition(len(parts)).map_batches(
        partial(_build_parts, parts),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=_cores()),
    )
    for batch in built.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from cast("pa.Table", batch)["players"].to_pylist()


def _cores() -> int:
    """Return about how many tasks keep every core busy: Ray's CPUs are logical, see configs."""
    import ray

    nodes = sum(n["Alive"] for n in ray.nodes())  # type: ignore[no-untyped-call]  # Ray has no types
    return nodes * (os.cpu_count() or 1)


def _build_parts(parts: Sequence[Part], batch: pa.Table) -> pa.Table:
    players = [parts[number].build() for number in batch["part"].to_pylist()]
    return pa.table({"players": pa.array(players, pa.int64())})


def _about(request: Request, players: int, events: int) -> dict[str, Any]:
    currency = request.brand.currency
    features = features_of(request.brand).features
    return {
        "brand": request.brand.id,
        "as_of": rfc3339(request.as_of),
        "known_by": rfc3339(request.known_by),
        "label_days": request.label_days,
        "players": players,
        "events": events,
        "units": {
            "money": f"integers, {currency.decimals} decimals of {currency.code}",
            "share": "integers, 6 decimals",
            "time": "microseconds since 1970",
            "number": "integers; decimals by feature",
        },
        "features": {name: feature.unit for name, feature in features.items()},
        "decimals": {
            name: feature.decimals
            for name, feature in features.items()
            if feature.decimals is not None
        },
    }


async def _make_current(
    settings: Settings, request: Request, folder: str, players: int
) -> set[str]:
    """List the folder, and take old builds off the list; return what is on it then."""
    pool = Pool(str(settings.postgres.direct_dsn), most=1)
    try:
        builds = PostgresFeatureBuilds(pool)
        await builds.add(folder, request.brand.id, request.as_of, request.known_by, players)
        await builds.forget_old()
        body: Body = {
            "as_of": request.as_of.isoformat(),
            "players": players,
            "features": len(features_of(request.brand).features),
            "folder": folder,
        }
        await PostgresFacts(pool).tell(
            "models", [NewFact("features.computed", request.brand.id, body)]
        )
        return await builds.folders()
    finally:
        await pool.close()


def _copy(lake: Lake, folder: str, out: Path) -> None:
    """Copy a folder of the lake to this machine; it appears whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name in lake.names(folder):
            (part / Path(name).name).write_bytes(lake.read(name))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _delete_all_but(lake: Lake, folders: Container[str]) -> None:
    """Delete builds that are not listed, but for those that may be under way."""
    before = clock.now() - UNDER_WAY
    for name, written in lake.names("features").items():
        folder = name.rpartition("/")[0]
        if folder not in folders and written < before:
            lake.delete(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a Ray job; the report is the last line of stdout."""
    import ray

    parser = argparse.ArgumentParser(prog="python -m pipelines.features")
    parser.add_argument("--as-of", required=True)
    parser.add_argument("--known-by")
    parser.add_argument("--brand")
    parser.add_argument("--label-days", type=int)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    settings = load_settings()
    try:
        brand = choose(load_brands(settings.brands_dir), asked.brand)
        request = Request.of(brand, asked.as_of, asked.known_by, asked.label_days, clock.now())
        ray.init("auto", namespace="crm", log_to_driver=False)
        built = build(settings, request, asked.out)
    except (CrmError, ConnectionError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(json.dumps(built.as_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
