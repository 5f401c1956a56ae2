"""Where the API listens and how many replicas serve it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ApiSettings:
    """`host` is loopback unless the operator says otherwise."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 2
