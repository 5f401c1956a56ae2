"""Scores for the API, asked of the deployment that holds the models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from crm.domain.errors import CrmError, ShardsWarming
from crm.services.coalescing import Coalescer
from crm.services.served_models import ModelsState

NAME = "segmentation"  # the deployment, and its application
SCORES_A_CALL = 16
_IN_FLIGHT = 2
WAIT_S = 10.0  # longer than a replica waits for the successor of a shard's owner


class ServedScores:
    """Scores of players, asked of the replicas that hold the models; who waits shares a call.

    A call to another deployment costs several times what the scores of a player do.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._calls: Coalescer[tuple[str, str], bytes | CrmError] = Coalescer(
            self._ask, most=SCORES_A_CALL, in_flight=_IN_FLIGHT, worth=SCORES_A_CALL // 2
        )

    async def of_player(self, brand: str, player_id: str) -> bytes:
        """Return a player's scores as JSON."""
        (found,) = await self._calls.submit([(brand, player_id)])
        if isinstance(found, CrmError):
            raise found
        return found

    async def _ask(self, asked: Sequence[tuple[str, str]]) -> Sequence[bytes | CrmError]:
        try:
            async with asyncio.timeout(WAIT_S):  # without a replica, the call waits for one
                scores: list[bytes | CrmError] = await self._serving().scores.remote(asked)
        except (RayError, RayServeException, TimeoutError) as error:
            raise _told(error) from error
        return scores

    async def state(self) -> str:
        """Say how the models of the replicas are; `ok` only if they are so in each."""
        states = [replica.state for replica in await self.replicas()]
        return next((state for state in states if state != "ok"), "ok" if states else "away")

    async def replicas(self) -> list[ModelsState]:
        """Return how the models of each replica are."""
        try:
            found: list[ModelsState] = await self._serving().broadcast("state").results_async()
        except (RayError, RayServeException) as error:
            raise _told(error) from error
        return found

    def _serving(self) -> Any:
        if self._handle is None:
            self._handle = serve.get_deployment_handle(NAME, NAME, _check_exists=False)
        return self._handle


def _told(error: Exception) -> Exception:
    """Return the fact that a replica raised, or that none answers."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CrmError):
        return cause
    if isinstance(error, RayTaskError):
        return error
    return ShardsWarming("no replica with models answers now; try again")
