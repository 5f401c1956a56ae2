"""Predictions for players by their live features, or for features that somebody sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
import numpy as np

from crm.domain.brands import Brand
from crm.domain.clustering import Flags, Ints
from crm.domain.errors import FeatureNotFound, ModelNotFound, ModelUnusable, PlayerNotFound
from crm.domain.feature_list import features_of
from crm.domain.feature_rows import read_rows
from crm.domain.models import ModelKind
from crm.domain.ports import SomePlayers
from crm.domain.predictions import (
    BrandModels,
    ChurnScore,
    Prediction,
    Rows,
    ValueScore,
    predictions,
)
from crm.services.coalescing import Coalescer
from crm.services.served_models import ServedModels

MOST = 1_000  # players of a request
_SMALL = 32  # players of a request that waits for others, to be read with them
_TOGETHER = 256  # players of one such reading
_IN_FLIGHT = 2
_SLICE = 64  # rows scored at once: a small request waits for no more of a large one


_Asked = tuple[int, str]  # the index in its request, and the player


class LivePlayers(Protocol):
    """The one thing that predictions need of the feature shards."""

    async def of_players(
        self, brand: str, player_ids: Sequence[str], names: Sequence[str]
    ) -> SomePlayers:
        """Return features of some players, live, all at one moment; raises ShardsWarming."""


class Rejected(msgspec.Struct, frozen=True):
    """A player, or a row of features, for whom there is no prediction."""

    index: int
    player_id: str | None
    code: str
    message: str


class PredictionReport(msgspec.Struct, frozen=True):
    """Predictions in the order of the request, and by index what was rejected."""

    predictions: list[Prediction]
    rejected: list[Rejected]


class PlayerScores(msgspec.Struct, frozen=True):
    """What the models say of one player at `as_of`; a kind that no model serves is null."""

    player_id: str
    brand: str
    cluster: int | None
    initial: bool | None
    churn: ChurnScore | None
    value: ValueScore | None
    as_of: datetime
    model: dict[ModelKind, str]
    missing: dict[ModelKind, str]


class Scores(Protocol):
    """Whoever knows the scores of a player, as JSON of PlayerScores."""

    async def of_player(self, brand: str, player_id: str) -> bytes:
        """Return them; raises PlayerNotFound, ModelNotFound, ModelUnusable, ShardsWarming."""


class Predictions:
    """Scores players with a brand's serving models, many rows at once.

    What is asked for at about the same time is read in one call to the owners and scored together;
    scoring runs on `executor`, so that an answer never waits behind a whole large request.
    """

    def __init__(
        self,
        shards: LivePlayers,
        served: ServedModels,
        now: Callable[[], datetime],
        executor: Executor | None = None,
    ) -> None:
        self._shards = shards
        self._served = served
        self._now = now
        self._executor = executor
        self._readers: dict[str, Coalescer[_Asked, Prediction | None]] = {}

    async def of_player(self, brand: Brand, player_id: str) -> PlayerScores:
        """Return the scores of one player; raises PlayerNotFound, ModelNotFound, ShardsWarming."""
        (found,) = await self.of_each(brand, [player_id])
        if isinstance(found, PlayerNotFound):
            raise found
        return found

    async def of_each(
        self, brand: Brand, player_ids: Sequence[str]
    ) -> list[PlayerScores | PlayerNotFound]:
        """Return the scores of players, read together; raises ModelNotFound, ShardsWarming."""
        report = await self.of_players(brand, player_ids)
        told: list[PlayerScores | PlayerNotFound] = [
            PlayerNotFound(f"brand {brand.id} has no such player") for _ in player_ids
        ]
        for one in report.predictions:
            told[one.index] = PlayerScores(
                player_id=player_ids[one.index],
                brand=brand.id,
                cluster=one.cluster,
                initial=one.initial,
                churn=one.churn,
                value=one.value,
                as_of=one.as_of,
                model=one.model,
                missing=one.missing,
            )
        return told

    async def of_players(self, brand: Brand, player_ids: Sequence[str]) -> PredictionReport:
        """Return predictions by live features, all at one moment; raises ModelNotFound."""
        self._models(brand)
        asked = list(enumerate(player_ids))
        small = len(asked) <= _SMALL
        read = await (self._reader(brand).submit(asked) if small else self._read(brand, asked))
        unknown = f"brand {brand.id} has no such player"
        return PredictionReport(
            [one for one in read if one is not None],
            [
                Rejected(index, player, PlayerNotFound.code, unknown)
                for (index, player), one in zip(asked, read, strict=True)
                if one is None
            ],
        )

    async def of_features(
        self, brand: Brand, rows: Sequence[Mapping[str, object]]
    ) -> PredictionReport:
        """Return predictions for features as clients read them; raises ModelNotFound."""
        models = self._models(brand)
        read = read_rows(models.features, features_of(brand).features, rows)
        players = [(index, None) for index in read.places]
        scored = await self._scored(models, models.rows_of(read.values), players, self._now())
        return PredictionReport(scored, [Rejected(i, None, *fault) for i, *fault in read.refused])

    def _models(self, brand: Brand) -> BrandModels:
        models = self._served.of(brand.id)
        if not models.ids:
            raise ModelNotFound(
                f"no model serves brand {brand.id} yet: train one, and promote it"
                " (docs/registry.md)"
            )
        return models

    def _reader(self, brand: Brand) -> Coalescer[_Asked, Prediction | None]:
        if brand.id not in self._readers:
            self._readers[brand.id] = Coalescer(
                partial(self._read, brand), most=_TOGETHER, in_flight=_IN_FLIGHT, worth=_SMALL
            )
        return self._readers[brand.id]

    async def _read(self, brand: Brand, asked: Sequence[_Asked]) -> list[Prediction | None]:
        """Return a prediction for each who is known, None for the others."""
        models = self._models(brand)
        try:
            found = await self._shards.of_players(
                brand.id, [player for _, player in asked], list(models.features)
            )
        except FeatureNotFound as error:  # `crm apply` has taken an own measure away
            raise ModelUnusable(error.message) from error
        rows = np.flatnonzero(found.known)
        raw = {name: found.values[name][rows] for name in models.features}
        missing = {name: _of(found.missing.get(name), rows) for name in models.features}
        players = [asked[row] for row in rows.tolist()]
        told: list[Prediction | None] = [None] * len(asked)
        scored = await self._scored(models, models.rows_of_raw(raw, missing), players, found.as_of)
        for row, one in zip(rows.tolist(), scored, strict=True):
            told[row] = one
        return told

    async def _scored(
        self,
        models: BrandModels,
        rows: Rows,
        players: Sequence[tuple[int, str | None]],
        as_of: datetime,
    ) -> list[Prediction]:
        told: list[Prediction] = []
        for start in range(0, len(players), _SLICE):
            some = slice(start, start + _SLICE)
            part = {kind: whole[some] for kind, whole in rows.items()}
            told += await asyncio.get_running_loop().run_in_executor(
                self._executor, predictions, models, part, players[some], as_of
            )
        return told


def _of(mask: Flags | None, rows: Ints) -> Flags | None:
    return None if mask is None else mask[rows]
