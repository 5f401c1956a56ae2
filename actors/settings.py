"""How many shard owners there are, how closely they are watched, and what is done on the side."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from crm.domain.models import ModelKind
from crm.domain.schedules import Schedule


@dataclass(frozen=True)
class ShardSettings:
    """Times in seconds; `misses` unanswered pings in a row bring a successor.

    Without `coalesce` every request is a call of its own to each owner, and every call a
    transaction: what bench/ingest.py holds the service against, and nothing to run.
    """

    owners: int = 2
    ping_s: float = 1.0
    misses: int = 3
    snapshot_age_s: float = 15.0
    coalesce: bool = True


@dataclass(frozen=True)
class SegmentSettings:
    """Each live segment is counted every `size_every_s` seconds, for the curve of its size.

    Transitions stay in PostgreSQL, and with them what a live reader's cursor may ask for, for
    `transitions_kept_days`; then they are in the lake alone.
    """

    size_every_s: float = 3_600.0
    transitions_kept_days: Annotated[float, Field(ge=1)] = 30.0


@dataclass(frozen=True)
class RetrainPlan:
    """Models of `kind` are trained anew by `cron` (in the brand's time zone) or `every_s` seconds.

    `brand` None: those of every brand that has no plan of its own.
    """

    kind: ModelKind
    brand: str | None = None
    cron: str | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        self.schedule()

    def schedule(self) -> Schedule:
        """Return when it is due; raises ValueError for one that cannot be."""
        return Schedule(self.cron, self.every_s)


@dataclass(frozen=True)
class DriftSettings:
    """Serving models are looked at every `every_s` seconds (0: never); from these PSI on they are
    trained anew, but not within `rest_s` of the last time.
    """

    every_s: Annotated[float, Field(ge=0)] = 3_600.0
    features: Annotated[float, Field(gt=0)] = 0.25
    scores: Annotated[float, Field(gt=0)] = 0.25
    rest_s: Annotated[float, Field(ge=0)] = 86_400.0


@dataclass(frozen=True)
class RetrainSettings:
    """`promoted` are the kinds whose retrained models serve by rule; a job ends after `longest_s`.

    A job asks `batch` of the `crm-batch` resource of a node, see ray-cluster.yaml.
    """

    plans: tuple[RetrainPlan, ...] = ()
    drift: DriftSettings = field(default_factory=DriftSettings)
    promoted: tuple[ModelKind, ...] = ("clusters", "churn", "value")
    look_every_s: Annotated[float, Field(gt=0)] = 2.0
    longest_s: Annotated[float, Field(gt=0)] = 21_600.0
    batch: Annotated[float, Field(gt=0)] = 1.0
