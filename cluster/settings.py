"""How much of the machine Ray takes, and the demonstration brand."""

from dataclasses import dataclass

from deployments.settings import Port


@dataclass(frozen=True)
class RaySettings:
    """`address` None starts a local cluster; a port 0 means any free one; CPUs are logical."""

    address: str | None = None
    dashboard_port: Port = 8265
    num_cpus: int = 8
    object_store_mb: int = 512


@dataclass(frozen=True)
class DemoSettings:
    """The simulated brand that an empty store gets after its first start."""

    enabled: bool = True
    players: int = 2000
    days: int = 60
    seed: int = 7
