"""The models that a process serves: loaded, tried and exchanged while it goes on answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import structlog

from crm.domain.brands import Brand
from crm.domain.clustering import PlayerClusters
from crm.domain.errors import CrmError, DatabaseAway, ModelUnusable, ShardsWarming
from crm.domain.feature_list import features_of
from crm.domain.model_documents import decode
from crm.domain.models import ModelKind, RegisteredModel, ScoreModel, Scorer
from crm.domain.predictions import BrandModels, predictions
from crm.domain.times import from_us
from crm.services.model_registry import ServingModels

log = structlog.get_logger(__name__)

RETRY_S = 10.0  # until a model that could not be loaded is tried again
_NOTHING = BrandModels()
_SMOKE = (np.nan, 0.0, 1.0, 1e6)  # players of whom nothing is known, and of all kinds of size


class Switch(NamedTuple):
    """What has become of a model that serves now: in use in `former`'s place, or `refused`.

    Where both are the same one, another was refused before, and is not asked for any more.
    """

    brand: str
    kind: ModelKind
    former: str | None
    model: str | None
    refused: str | None = None


class ModelsState(NamedTuple):
    """How a process's models are: `state` is `ok`, `warming`, or says which new ones were refused.

    `revision` is the registry's that is in use; `switches` counts the models taken into use.
    """

    state: str
    revision: int | None
    switches: int
    models: Mapping[str, Mapping[ModelKind, str]]


@dataclass(frozen=True)
class _Stand:
    """What is in use: of a revision of the registry, and what of it was refused."""

    revision: int
    models: Mapping[str, BrandModels]
    refused: Sequence[Switch]


class ServedModels:
    """The serving models of all brands, exchanged whole and in one assignment.

    Whoever has taken a brand's models keeps them to the end of an answer. A model that cannot be
    opened, or fails its smoke prediction, is not taken: the one before stays.
    """

    def __init__(
        self,
        registry: ServingModels,
        brands: Mapping[str, Brand],
        open_scorer: Callable[[ScoreModel], Scorer],
        monotonic: Callable[[], float],
        tell: Callable[[Switch], None] = lambda _switch: None,
    ) -> None:
        self._registry = registry
        self._brands = brands
        self._open_scorer = open_scorer
        self._monotonic = monotonic
        self._tell = tell
        self._stand: _Stand | None = None
        self._tried_at = float("-inf")
        self._switches = 0

    def of(self, brand: str) -> BrandModels:
        """Return a brand's models; raises ShardsWarming before they were loaded once."""
        if self._stand is None:
            raise ShardsWarming("the models are being loaded; try again")
        return self._stand.models.get(brand, _NOTHING)

    @property
    def state(self) -> ModelsState:
        """How this is."""
        stand = self._stand
        if stand is None:
            return ModelsState("warming", None, 0, {})
        kept = sorted(f"{one.kind} of {one.brand}" for one in stand.refused)
        said = f"new model refused: {', '.join(kept)}" if kept else "ok"
        ids = {brand: models.ids for brand, models in stand.models.items()}
        return ModelsState(said, stand.revision, self._switches, ids)

    async def refresh(self) -> None:
        """Take over what has changed in the registry; raises DatabaseAway, and nothing changes."""
        revision = await self._registry.revision()
        stand = self._stand
        if stand is not None and revision == stand.revision:
            in_time = self._monotonic() - self._tried_at < RETRY_S
            if in_time or not stand.refused:
                return
        self._tried_at = self._monotonic()
        wanted = [one for one in await self._registry.serving() if one.brand in self._brands]
        before = {} if stand is None else stand.models
        models, switches = await self._exchanged(before, wanted)
        told_before = () if stand is None else stand.refused
        refused = [switch for switch in switches if switch.refused]
        self._stand = _Stand(revision, models, refused)
        for switch in switches:
            if switch not in told_before:
                self._note(switch, revision)

    async def _exchanged(
        self, before: Mapping[str, BrandModels], wanted: Sequence[RegisteredModel]
    ) -> tuple[dict[str, BrandModels], list[Switch]]:
        """Return the models by brand, each new one tried first, and what became of each."""
        models, switches = dict(before), []
        asked = {(one.brand, one.kind): one for one in wanted}
        for brand, kind in sorted({*asked, *_known(before)}):
            one, former = asked.get((brand, kind)), models.get(brand, _NOTHING)
            was = former.ids.get(kind)
            if was == (one.id if one else None):
                if kind in former.refused:
                    models[brand] = replace(former, refused=former.refused - {kind})
                    switches.append(Switch(brand, kind, was, was))
                continue
            reason = None
            try:
                models[brand] = await self._with(former, kind, one)
            except DatabaseAway:
                raise
            except CrmError as error:
                reason = error.message
            except Exception as error:  # noqa: BLE001 - whatever it is, the former one serves on
                reason = f"{type(error).__name__}: {error}"
            if reason is not None:
                models[brand] = replace(former, refused=former.refused | {kind})
            switches.append(Switch(brand, kind, was, one.id if one else None, reason))
        return models, switches

    async def _with(
        self, former: BrandModels, kind: ModelKind, one: RegisteredModel | None
    ) -> BrandModels:
        """Return a brand's models with another one of a kind, or without; raises ModelUnusable."""
        if one is None:
            return former.exchanged(kind, None, None)
        document = await self._registry.document(one.id)
        opened = await asyncio.to_thread(self._opened, one, document)
        return former.exchanged(kind, opened, one.id)

    def _opened(self, one: RegisteredModel, document: bytes) -> PlayerClusters | Scorer:
        """Open a model, and have it answer a smoke prediction."""
        found = decode(one.kind, document)
        opened = self._open_scorer(found) if isinstance(found, ScoreModel) else found
        smoke(_NOTHING.exchanged(one.kind, opened, one.id), self._brands[one.brand])
        return opened

    def _note(self, switch: Switch, revision: int) -> None:
        facts = {name: value for name, value in switch._asdict().items() if value is not None}
        if switch.refused:
            log.error("model_refused", **facts, revision=revision)
        elif switch.former == switch.model:
            log.info("model_kept", **facts, revision=revision)
        else:
            self._switches += 1
            log.info("model_switched", **facts, revision=revision)
        self._tell(switch)


def smoke(models: BrandModels, brand: Brand) -> None:
    """Predict for a few made-up players; raises ModelUnusable if an answer makes no sense."""
    known = features_of(brand).features
    for name, feature in models.features.items():
        if name not in known:
            raise ModelUnusable(f"the running service has no feature {name!r}: run `crm apply`")
        if (known[name].unit, known[name].decimals) != (feature.unit, feature.decimals):
            raise ModelUnusable(f"{name} is in other units than when the model was trained")
    if not all(model.features for model in models.each.values()):
        raise ModelUnusable("it reads no feature")
    rows = models.rows_of({name: np.array(_SMOKE) for name in models.features})
    players = [(row, None) for row in range(len(_SMOKE))]
    told = predictions(models, rows, players, from_us(0))
    for one in told:
        if models.clusters is not None:
            described = {cluster.id for cluster in models.clusters.clusters}
            if one.cluster not in described:
                raise ModelUnusable("it assigns a player to a cluster that it does not describe")
        if one.churn is not None and not 0 <= one.churn.probability <= 1:
            raise ModelUnusable("its probability is not between 0 and 1")
        if one.value is not None and not np.isfinite(float(one.value.predicted)):
            raise ModelUnusable("its value is no number")


def _known(models: Mapping[str, BrandModels]) -> list[tuple[str, ModelKind]]:
    """Return all that is in use or was refused."""
    return [(brand, kind) for brand, one in models.items() for kind in {*one.ids, *one.refused}]
