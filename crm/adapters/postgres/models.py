"""The registry of models in PostgreSQL: every change in one transaction, with its record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from crm.adapters.postgres import facts, idempotency
from crm.adapters.postgres.pool import Pool
from crm.adapters.postgres.queries import load
from crm.domain.errors import ModelNotFound
from crm.domain.model_changes import (
    REGISTERED,
    Deed,
    ModelChange,
    check_promotion,
    check_reason,
    check_same,
    check_seen,
    registered,
    registered_facts,
    serving_facts,
    to_go_back_to,
)
from crm.domain.models import ModelKind, ModelState, RegisteredModel, TrainedModel, TrainedOn
from crm.domain.saved_segments import Once

if TYPE_CHECKING:
    from crm.adapters.postgres.idempotency import Connection

_BULK_TIMEOUT_S = 60


class _About(msgspec.Struct, frozen=True):
    """What is kept of a model in one column, since it is only read whole."""

    features: list[str]
    feature_list: str
    code_version: str
    seed: int
    params: dict[str, str]
    metrics: dict[str, float]
    data: TrainedOn


class PostgresModels:
    """Rows of `models` and what belongs to them; every call may raise DatabaseAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load("models")

    # --- changes --------------------------------------------------------------------------------

    async def add(self, model: TrainedModel, run: str | None = None) -> RegisteredModel:
        """Register a model as a candidate; the same model again changes nothing.

        Raises InvalidModel if its id is another model's.
        """
        async with self._pool.using() as connection, connection.transaction():
            await self._lock(connection, model.brand, model.kind)
            if await connection.fetchrow(self._sql["kind_of"], model.id):
                return await self._same(connection, model)
            sql = self._sql["take_number"]
            number = await connection.fetchval(sql, model.brand, model.kind)
            added = registered(model, number, run)
            await connection.execute(
                self._sql["add_model"],
                model.id, model.brand, model.kind, number, model.algorithm, model.created_at,
                _about(added), model.beats_baseline, model.document, run, timeout=_BULK_TIMEOUT_S,
            )  # fmt: skip
            sizes = [len(model.files[name]) for name in added.files]
            digests = [sha256(model.files[name]).digest() for name in added.files]
            await connection.execute(self._sql["add_files"], model.id, added.files, sizes, digests)
            await self._note(connection, added, REGISTERED)
            await facts.tell(connection, "models", registered_facts(added))
        return added

    async def promote(
        self,
        model: str,
        by: str,
        *,
        why: str = "",
        force: bool = False,
        seen: str | None = None,
        once: Once | None = None,
    ) -> RegisteredModel:
        """Have a model serve; nothing changes if it does already.

        Raises ModelNotFound, ModelNotBetter, ServingChanged, InvalidReason, KeyReused.
        """

        async def work(connection: Connection) -> RegisteredModel:
            of = await connection.fetchrow(self._sql["kind_of"], model)
            if of is None:
                raise ModelNotFound("no model has this id")
            promotion, before = await self._lock(connection, of["brand"], of["kind"])
            wanted = await self._one(connection, model)
            check_promotion(wanted, why, force=force)
            if before == model:
                return wanted
            check_seen(seen, before)
            deed = Deed("promoted", by, before, why, force)
            made = await self._note(connection, wanted, deed, promotion)
            return await self._serve(connection, wanted, made, before)

        return await self._change(work, once)

    async def rollback(
        self,
        brand: str,
        kind: ModelKind,
        by: str,
        *,
        why: str = "",
        seen: str | None = None,
        once: Once | None = None,
    ) -> RegisteredModel:
        """Have the model serve that served before, and return it; `seen` is who should serve now.

        Raises NoFormerModel, ServingChanged, KeyReused.
        """

        async def work(connection: Connection) -> RegisteredModel:
            promotion, before = await self._lock(connection, brand, kind)
            check_reason(why)
            check_seen(seen, before)
            found = await connection.fetchrow(self._sql["promotion_before"], promotion)
            former = to_go_back_to(found, brand, kind)
            wanted = await self._one(connection, former["model"])
            await self._note(connection, wanted, Deed("rolled_back", by, before, why))
            return await self._serve(connection, wanted, former["id"], before)

        return await self._change(work, once)

    async def _change(
        self, work: Callable[[Connection], Awaitable[RegisteredModel]], once: Once | None
    ) -> RegisteredModel:
        """Do `work` once in a transaction, with its answer under the key."""
        async with self._pool.using() as connection, connection.transaction():
            if (found := await idempotency.take(connection, once)) is not None:
                return msgspec.json.decode(found, type=RegisteredModel)
            done = await work(connection)
            await idempotency.note(connection, once, msgspec.json.encode(done))
        return done

    async def _same(self, connection: Connection, model: TrainedModel) -> RegisteredModel:
        """Return the model as it is registered; raises InvalidModel if another one has its id."""
        found = await self._one(connection, model.id)
        document = await connection.fetchval(
            self._sql["document"], model.id, timeout=_BULK_TIMEOUT_S
        )
        rows = await connection.fetch(self._sql["files"], model.id)
        check_same(model, found, document, _digests(rows))
        return found

    async def _lock(
        self, connection: Connection, brand: str, kind: str
    ) -> tuple[int | None, str | None]:
        """Wait for other changes of the kind; return the promotion in force, and who serves."""
        row = await connection.fetchrow(self._sql["lock_kind"], brand, kind)
        return (None, None) if row is None else (row["promotion"], row["serving"])

    async def _note(
        self,
        connection: Connection,
        model: RegisteredModel,
        deed: Deed,
        former: int | None = None,
    ) -> int:
        whose = (deed.by, model.brand, model.kind, deed.action, model.id)
        made: int = await connection.fetchval(
            self._sql["add_change"], *whose, deed.before, deed.why, deed.forced, former
        )
        return made

    async def _serve(
        self, connection: Connection, model: RegisteredModel, promotion: int, before: str | None
    ) -> RegisteredModel:
        sql = self._sql["serve"]
        await connection.execute(sql, model.brand, model.kind, promotion, model.id)
        await facts.tell(connection, "models", serving_facts(model, before))
        await connection.execute(self._sql["raise_revision"])
        return await self._one(connection, model.id)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, model: str) -> RegisteredModel:
        """Return a model; raises ModelNotFound."""
        async with self._pool.using() as connection:
            return await self._one(connection, model)

    async def listed(
        self,
        brand: str,
        kind: ModelKind | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[RegisteredModel]:
        """Return a brand's models, the newest first, after (created_at, id)."""
        at, model = after or (None, None)
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["page"], brand, kind, at, model, limit)
        return [_model(row) for row in rows]

    async def serving(self, brand: str | None = None) -> list[RegisteredModel]:
        """Return the serving models, at most one a kind, of one brand or of all."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["serving"], brand)
        return [_model(row) for row in rows]

    async def document(self, model: str) -> bytes:
        """Return what serving loads, as it was handed over; raises ModelNotFound."""
        async with self._pool.using() as connection:
            found: bytes | None = await connection.fetchval(
                self._sql["document"], model, timeout=_BULK_TIMEOUT_S
            )
        if found is None:
            raise ModelNotFound("no model has this id")
        return found

    async def digests(self, model: str) -> dict[str, bytes]:
        """Return the SHA-256 of each file by name; raises ModelNotFound."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["files"], model)
        if not rows:
            raise ModelNotFound("no model has this id")
        return _digests(rows)

    async def installation(self) -> str:
        """Return what tells this database from those of other installations."""
        async with self._pool.using() as connection:
            return str(await connection.fetchval(self._sql["installation"]))

    async def known(self, models: Sequence[str]) -> set[str]:
        """Return which of these ids are registered."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["known"], models)
        return {row["id"] for row in rows}

    async def revision(self) -> int:
        """Return a number that every promotion and rollback has raised."""
        async with self._pool.using() as connection:
            revision: int = await connection.fetchval(self._sql["revision"])
        return revision

    async def changes(
        self, brand: str, before: int | None = None, limit: int = 100
    ) -> list[ModelChange]:
        """Return the record of a brand's changes, the newest first, below an id."""
        async with self._pool.using() as connection:
            rows = await connection.fetch(self._sql["changes"], brand, before, limit)
        return [ModelChange(*row.values()) for row in rows]

    async def _one(self, connection: Connection, model: str) -> RegisteredModel:
        row = await connection.fetchrow(self._sql["model"], model)
        if row is None:
            raise ModelNotFound("no model has this id")
        return _model(row)


def _digests(rows: Sequence[asyncpg.Record]) -> dict[str, bytes]:
    return {row["name"]: row["sha256"] for row in rows if row["name"] is not None}


def _about(model: RegisteredModel) -> str:
    fields = {name: getattr(model, name) for name in _About.__struct_fields__}
    return msgspec.json.encode(fields).decode()


def _model(row: asyncpg.Record) -> RegisteredModel:
    about = msgspec.json.decode(row["about"], type=_About)
    idle: ModelState = "candidate" if row["promoted_at"] is None else "former"
    return RegisteredModel(
        id=row["id"],
        brand=row["brand"],
        kind=row["kind"],
        number=row["number"],
        state="serving" if row["serving"] else idle,
        algorithm=row["algorithm"],
        created_at=row["created_at"],
        beats_baseline=row["beats_baseline"],
        files=row["names"] or [],
        promoted_at=row["promoted_at"],
        run=row["run"],
        **msgspec.structs.asdict(about),
    )


@asynccontextmanager
async def open_models(dsn: str) -> AsyncIterator[PostgresModels]:
    """Yield a registry with a small pool of its own, for a job, a command or a test."""
    pool = Pool(dsn, most=2)
    try:
        yield PostgresModels(pool)
    finally:
        await pool.close()
