"""Where the API listens, and how many replicas serve it, the live socket and the models."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Port = Annotated[int, Field(ge=0, le=65_535)]  # 0: any free one


@dataclass(frozen=True)
class ApiSettings:
    """`host` is loopback unless the operator says otherwise; a request has its time to end."""

    host: str = "127.0.0.1"
    port: Port = 8000
    replicas: int = 2
    request_timeout_s: Annotated[float, Field(gt=0)] = 60.0


@dataclass(frozen=True)
class LiveSettings:
    """How many replicas serve live sockets, and how many sockets each holds at most."""

    replicas: int = 1
    sockets: Annotated[int, Field(ge=1, le=3_500)] = 2_000


@dataclass(frozen=True)
class PredictionSettings:
    """How many replicas hold the models and predict."""

    replicas: Annotated[int, Field(ge=1)] = 1
