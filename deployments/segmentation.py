"""The Serve deployment of the models: predictions over HTTP, scores for the API, hot reload."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
from ray import serve
from ray.util.metrics import Counter, Gauge
from starlette.types import ASGIApp

from actors.gateway import ShardGateway
from crm.adapters import clock
from crm.adapters.postgres.events import PostgresEventLog
from crm.adapters.postgres.keys import PostgresKeys
from crm.adapters.postgres.models import PostgresModels
from crm.adapters.postgres.pool import Pool
from crm.adapters.scorers import open_scorer
from crm.domain.brands import Brand, choose
from crm.domain.errors import CrmError
from crm.services.predictions import Predictions
from crm.services.served_models import ModelsState, ServedModels, Switch
from deployments.api.guard import KnownKeys
from deployments.scores import NAME
from deployments.segmentation_app import SegmentationServices, create_app

_CONNECTIONS = 4


@dataclass(frozen=True)
class SegmentationSpec:
    """What a replica needs to know."""

    brands: Mapping[str, Brand]
    dsn: str


class Segmentation:
    """One replica."""

    def __init__(self, spec: SegmentationSpec) -> None:
        self._services = _services(spec)

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's own hook
        return create_app(self._services)

    async def scores(self, asked: Sequence[tuple[str, str]]) -> list[bytes | CrmError]:
        """Return the scores of players (brand and id) as JSON, or why there are none."""
        told: dict[tuple[str, str], bytes | CrmError] = {}
        for brand in sorted({brand for brand, _ in asked}):
            players = [player for of_brand, player in asked if of_brand == brand]
            told |= zip(
                [(brand, player) for player in players], await self._of(brand, players), strict=True
            )
        return [told[one] for one in asked]

    async def _of(self, brand: str, players: Sequence[str]) -> Sequence[bytes | CrmError]:
        try:
            found = await self._services.predictions.of_each(
                choose(self._services.brands, brand), players
            )
        except CrmError as error:
            return [error] * len(players)
        return [one if isinstance(one, CrmError) else msgspec.json.encode(one) for one in found]

    async def state(self) -> ModelsState:
        """Say how the models of this replica are."""
        return self._services.served.state


def _services(spec: SegmentationSpec) -> SegmentationServices:
    pool = Pool(spec.dsn, most=_CONNECTIONS)
    gateway = ShardGateway(spec.brands, PostgresEventLog(spec.dsn, clock.now))
    served = ServedModels(
        PostgresModels(pool), spec.brands, open_scorer, time.monotonic, _Metrics().count
    )
    scoring = ThreadPoolExecutor(1, thread_name_prefix="scoring")
    return SegmentationServices(
        spec.brands,
        Predictions(gateway, served, clock.now, scoring),
        served,
        KnownKeys(PostgresKeys(pool), time.monotonic),
    )


class _Metrics:
    """What a replica counts of its models."""

    def __init__(self) -> None:
        tags = ("brand", "kind")
        self._switches = Counter("crm_model_switches", "Models taken into use.", tags)
        self._refusals = Counter(
            "crm_model_refusals", "Models that failed to load or answer.", tags
        )
        self._refused = Gauge("crm_model_refused", "1 while a former model stays in use.", tags)

    def count(self, switch: Switch) -> None:
        tags = {"brand": switch.brand, "kind": switch.kind}
        self._refused.set(float(switch.refused is not None), tags=tags)
        if switch.refused:
            self._refusals.inc(tags=tags)
        elif switch.former != switch.model:
            self._switches.inc(tags=tags)


SegmentationDeployment = serve.deployment(
    name=NAME,
    ray_actor_options={"num_cpus": 0},
    max_ongoing_requests=256,
    max_queued_requests=1024,
    max_surge_percent=100,  # the next replica has its models before the former one leaves
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=5,
    health_check_period_s=2,
    health_check_timeout_s=10,
)(serve.ingress()(Segmentation))
