"""The documents of models, decoded by kind: what serving, looks at drift and retrains load."""

from __future__ import annotations

from typing import Literal, overload

import msgspec

from crm.domain.clustering import PlayerClusters
from crm.domain.errors import ModelUnreadable
from crm.domain.models import ModelKind, ScoreModel


@overload
def decode(kind: Literal["clusters"], document: bytes) -> PlayerClusters: ...
@overload
def decode(kind: Literal["churn", "value"], document: bytes) -> ScoreModel: ...
@overload
def decode(kind: ModelKind, document: bytes) -> PlayerClusters | ScoreModel: ...


def decode(kind: ModelKind, document: bytes) -> PlayerClusters | ScoreModel:
    """Return what a document holds; raises ModelUnreadable, also for that of another kind."""
    shape: type[PlayerClusters | ScoreModel] = PlayerClusters if kind == "clusters" else ScoreModel
    try:
        found = msgspec.json.decode(document, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnreadable(f"document: not a {shape.__name__}: {error}") from None
    held = found.kind if isinstance(found, ScoreModel) else "clusters"
    if held != kind:
        raise ModelUnreadable(f"document: of kind {held}, not {kind}")
    return found
