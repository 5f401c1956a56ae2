"""What may be registered and promoted, and the record of who changed what."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from crm.domain.clustering import NOISE, PlayerClusters
from crm.domain.errors import (
    InvalidModel,
    InvalidReason,
    ModelNotBetter,
    ModelUnreadable,
    NoFormerModel,
    ServingChanged,
)
from crm.domain.facts import Body, NewFact
from crm.domain.model_documents import decode
from crm.domain.models import RegisteredModel, TrainedModel
from crm.domain.personal import holds_card, looks_personal, unstorable

Former = TypeVar("Former")
ModelAction: TypeAlias = Literal["registered", "promoted", "rolled_back"]
PromotionRule: TypeAlias = Literal["first", "always", "never"]
PROMOTION_RULES: tuple[PromotionRule, ...] = ("first", "always", "never")
CARD = "card.md"
DOCUMENT = "document.json"
MAX_FILES = 200
MAX_BYTES = 256_000_000
MAX_REASON_CHARS = 500
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ModelChange(msgspec.Struct, frozen=True):
    """One entry of the record, which only grows: `model` is what serves after a promotion or a
    rollback, `before` what served until then; `forced`: against the rule, for the reason in `why`.
    """

    id: int
    at: datetime
    by: str
    brand: str
    kind: str
    action: ModelAction
    model: str
    before: str | None
    why: str
    forced: bool


class Deed(NamedTuple):
    """What somebody does to a model; `before` is who served until then."""

    action: ModelAction
    by: str
    before: str | None = None
    why: str = ""
    forced: bool = False


REGISTERED = Deed("registered", "training")


class StoredModel(NamedTuple):
    """What is stored somewhere under a model's id, and when it was last written to."""

    model: str
    at: datetime


def check_id(model: str) -> None:
    """Raise InvalidModel unless this may be the id of a model."""
    if not _ID.fullmatch(model):
        raise InvalidModel("id: 1 to 64 letters, digits, - and _, a letter or digit first")


def check_trained(model: TrainedModel) -> None:
    """Raise InvalidModel unless this can be registered, and what serves can load its document."""
    check_id(model.id)
    if DOCUMENT in model.files or len(model.files) > MAX_FILES:
        raise InvalidModel(f"files: at most {MAX_FILES}, none of them called {DOCUMENT}")
    if wrong := [name for name in model.files if not _FILE.fullmatch(name)]:
        raise InvalidModel(f"files: {wrong[0]!r} is no name of letters, digits, dots, - and _")
    if len(model.document) + sum(map(len, model.files.values())) > MAX_BYTES:
        raise InvalidModel(f"files: more than {MAX_BYTES // 1_000_000} MB in all")
    if endless := [name for name, value in model.metrics.items() if not math.isfinite(value)]:
        raise InvalidModel(f"metrics: {endless[0]} is not a finite number; leave it out")
    if model.created_at.tzinfo is None or model.data.as_of.tzinfo is None:
        raise InvalidModel("created_at, data.as_of: times need a zone")
    _check_document(model)


def _check_document(model: TrainedModel) -> None:
    try:
        found = decode(model.kind, model.document)
    except ModelUnreadable as error:
        raise InvalidModel(error.message) from None
    if (found.id, found.brand) != (model.id, model.brand):
        raise InvalidModel("document: its id and brand are not those of the model")
    if (
        isinstance(found, PlayerClusters)
        and found.cores is not None
        and all(one.id != NOISE for one in found.clusters)
    ):
        raise InvalidModel(f"document: cores leave players in no group: describe cluster {NOISE}")


def check_same(
    model: TrainedModel, found: RegisteredModel, document: bytes, digests: Mapping[str, bytes]
) -> None:
    """Raise InvalidModel unless what is registered under the model's id is this very model."""
    whose = (found.brand, found.kind, found.created_at)
    if (
        whose != (model.brand, model.kind, model.created_at)
        or document != model.document
        or digests != {name: sha256(data).digest() for name, data in model.files.items()}
    ):
        raise id_taken(found)


def id_taken(found: RegisteredModel) -> InvalidModel:
    """Return the refusal of an id that another training has had."""
    return InvalidModel(
        f"id {found.id} is that of another model, the {found.kind} model {found.number} of brand "
        f"{found.brand}: nothing was changed; register under an id that is new"
    )


def registered(model: TrainedModel, number: int, run: str | None) -> RegisteredModel:
    """Return what the registry says of a training that has just come in."""
    return RegisteredModel(
        id=model.id,
        brand=model.brand,
        kind=model.kind,
        number=number,
        state="candidate",
        algorithm=model.algorithm,
        created_at=model.created_at,
        features=model.features,
        feature_list=model.feature_list,
        code_version=model.code_version,
        data=model.data,
        metrics=model.metrics,
        beats_baseline=model.beats_baseline,
        files=sorted(model.files),
        seed=model.seed,
        params=model.params,
        run=run,
    )


def check_promotion(model: RegisteredModel, why: str, *, force: bool) -> None:
    """Raise ModelNotBetter or InvalidReason unless the model may serve."""
    check_reason(why)
    if force and not why.strip():
        raise InvalidReason("why: a forced promotion needs a reason")
    if model.beats_baseline is False and not force:
        raise ModelNotBetter(
            f"model {model.id} does not beat its baseline; to have it serve all the same, "
            "force it and say why"
        )


def check_reason(why: str) -> None:
    """Raise InvalidReason unless this may stand in the record for ever."""
    if len(why) > MAX_REASON_CHARS or unstorable(why):
        raise InvalidReason(f"why: at most {MAX_REASON_CHARS} characters of plain text")
    if looks_personal(why) or holds_card(why):
        raise InvalidReason("why: no addresses and no numbers of people; it is kept for ever")


def check_seen(seen: str | None, serving: str | None) -> None:
    """Raise ServingChanged if another model serves than the caller has seen; "" is none at all."""
    if seen is not None and seen != (serving or ""):
        what = f"model {serving} serves now" if serving else "no model serves now"
        raise ServingChanged(f"{what}; look again before you change that")


def to_go_back_to(former: Former | None, brand: str, kind: str) -> Former:
    """Return the promotion of before; raises NoFormerModel."""
    if former is None:
        raise NoFormerModel(f"brand {brand} has no model of kind {kind} to go back to")
    return former


def registered_facts(model: RegisteredModel) -> list[NewFact]:
    """Return what a registration tells: the features of the training, and the model."""
    data = model.data
    return [
        NewFact(
            "features.computed",
            model.brand,
            {
                "as_of": data.as_of.isoformat(),
                "players": data.players,
                "rows": data.rows,
                "features": len(model.features),
                "digest": data.digest,
                "for": model.kind,
            },
        ),
        NewFact(
            "model.retrained",
            model.brand,
            {
                "model": model.id,
                "kind": model.kind,
                "number": model.number,
                "algorithm": model.algorithm,
                "beats_baseline": model.beats_baseline,
            },
        ),
    ]


def serving_facts(model: RegisteredModel, before: str | None) -> list[NewFact]:
    """Return what a promotion or a rollback to `model` tells."""
    if model.kind != "clusters":
        return []
    body: Body = {"model": model.id, "number": model.number, "before": before}
    return [NewFact("clustering.updated", model.brand, body)]
