"""Where PostgreSQL is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PostgresSettings:
    """`dsn` None means the embedded server; `direct_dsn` bypasses a PgBouncer in front of `dsn`."""

    dsn: str | None = None
    direct_dsn: str | None = None
