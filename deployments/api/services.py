"""What the routes work with: made once a replica, handed in, nothing global."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from crm.domain.brands import Brand, choose
from crm.domain.ports import FeatureShards
from crm.services.clustering import ServingClusters
from crm.services.ingest import Ingest
from crm.services.model_registry import ModelFiles, Models
from crm.services.overview import Overviews
from crm.services.predictions import Scores
from crm.services.replays import Replays
from crm.services.retrain_store import RetrainStore
from crm.services.saved_segments import SavedSegments
from deployments.api.guard import KnownKeys

Check = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Services:
    """`checks` say of each part "ok", "warming" ...; those in `needed` decide on readiness."""

    brands: Mapping[str, Brand]
    ingest: Ingest
    shards: FeatureShards
    clusters: ServingClusters
    models: Models
    model_files: ModelFiles
    segments: SavedSegments
    overviews: Overviews
    replays: Replays
    retrains: RetrainStore
    scores: Scores
    keys: KnownKeys
    checks: Mapping[str, Check]
    needed: frozenset[str]
    now: Callable[[], datetime]

    def brand(self, brand_id: str | None) -> Brand:
        """Return a brand, the first one if none is named; raises BrandNotFound."""
        return choose(self.brands, brand_id)
