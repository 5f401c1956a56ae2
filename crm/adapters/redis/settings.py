"""Where Redis is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RedisSettings:
    """`url` None means the embedded server."""

    url: str | None = None
