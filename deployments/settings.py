"""Where the API listens and how many replicas serve it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Port = Annotated[int, Field(ge=0, le=65_535)]  # 0: any free one


@dataclass(frozen=True)
class ApiSettings:
    """`host` is loopback unless the operator says otherwise."""

    host: str = "127.0.0.1"
    port: Port = 8000
    replicas: int = 2
