"""The one call of a training: `register(settings, trained)`. The only process that knows MLflow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import structlog

from crm.adapters import clock
from crm.adapters.mlflow_runs import MlflowRuns, store_of
from crm.adapters.model_files import LakeModelFiles
from crm.adapters.postgres.models import open_models
from crm.domain.model_changes import PromotionRule
from crm.domain.models import Floats, RegisteredModel, TrainedModel
from crm.services import model_registry
from crm.services.model_registry import Parts

if TYPE_CHECKING:
    from configs.settings import Settings

log = structlog.get_logger(__name__)


def register(
    settings: Settings, model: TrainedModel, rule: PromotionRule = "first"
) -> RegisteredModel:
    """Register a training whole, or not at all, and have it serve if the rule says so.

    Raises InvalidModel, RunsAway, DatabaseAway; called again with the same model it goes on.
    """
    return asyncio.run(_register(settings, model, rule))


async def _register(
    settings: Settings, model: TrainedModel, rule: PromotionRule
) -> RegisteredModel:
    dsn, lake = str(settings.postgres.direct_dsn or settings.postgres.dsn), str(settings.lake.uri)
    async with open_models(dsn) as models:
        runs = MlflowRuns(store_of(settings.mlflow, dsn), lake, await models.installation())
        parts = Parts(LakeModelFiles(lake), runs, models)
        registered = await model_registry.register(parts, model, rule)
        swept = await model_registry.tidy(parts, clock.now())
    log.info("model_registered", model=model.id, kind=model.kind, state=registered.state)
    if swept:
        log.info("leftovers_swept", models=swept)
    return registered


def data_digest(ids: Sequence[str], values: Floats) -> str:
    """Return the SHA-256 of a training's rows: who, in their order, and their values."""
    digest = sha256(msgspec.json.encode(list(ids)))
    digest.update(np.ascontiguousarray(values, "<f8").tobytes())
    return digest.hexdigest()
