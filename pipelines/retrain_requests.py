"""What a retrain asks for: the same as was asked for the model that serves, else the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from crm.domain.brands import Brand
from crm.domain.clustering import Algorithm, Scaling
from crm.domain.errors import ModelUnreadable
from crm.domain.model_documents import decode
from crm.domain.models import RegisteredModel
from crm.domain.retrains import RetrainOptions
from pipelines.asked import asked_in, still_there
from pipelines.cluster_inputs import Request
from pipelines.cluster_space import Reduction
from pipelines.score_plan import Target

if TYPE_CHECKING:
    from pipelines.score_training import Request as ScoreRequest


class Serving(NamedTuple):
    """The model that serves, and its document."""

    model: RegisteredModel
    document: bytes


class _Clusters(msgspec.Struct):
    """What can be asked of player clusters; how long to search is the retrain's own matter."""

    algorithm: Algorithm | None = None
    k: int | None = None
    features: str | None = None
    scaling: Scaling | None = None
    reduction: Reduction | None = None
    min_share: float = Request.min_share


class _Score(msgspec.Struct):
    """What can be asked of a score."""

    horizon_days: int | None = None
    target: Target | None = None
    algorithm: Literal["xgboost", "logistic", "linear"] = "xgboost"
    features: str | None = None
    without: str | None = None


def clusters_request(brand: Brand, options: RetrainOptions, serving: Serving | None) -> Request:
    """Return the request of a retrain of player clusters."""
    asked = msgspec.convert(_asked(serving), type=_Clusters, strict=False)
    return Request(
        brand,
        algorithm=asked.algorithm,
        k=asked.k,
        features=still_there(asked.features, brand),
        scaling=asked.scaling,
        reduction=asked.reduction,
        seed=options.seed,
        budget_s=options.budget_s,
        min_share=asked.min_share,
    )


def score_request(
    kind: Literal["churn", "value"], brand: Brand, options: RetrainOptions, serving: Serving | None
) -> ScoreRequest:
    """Return the request of a retrain of a score: what serves says how far ahead, and of what."""
    from pipelines.score_training import Request as ScoreRequest  # sklearn: 1 s
    from pipelines.scores import HORIZONS

    told = {} if serving is None else _foreseen(kind, serving)
    asked = msgspec.convert(_asked(serving) | told, type=_Score, strict=False)
    return ScoreRequest(
        brand,
        kind,
        asked.horizon_days or HORIZONS[kind],
        asked.target or "money",
        algorithm=asked.algorithm,
        features=still_there(asked.features, brand),
        without=still_there(asked.without, brand) or (),
        seed=options.seed,
    )


def _asked(serving: Serving | None) -> dict[str, str]:
    return {} if serving is None else asked_in(serving.model.params)


def _foreseen(kind: Literal["churn", "value"], serving: Serving) -> dict[str, str]:
    """Return the horizon and target of a document, also of a model that notes nothing asked."""
    try:
        model = decode(kind, serving.document)
    except ModelUnreadable:
        return {}
    target: Target = "count" if model.target.endswith("_days") else "money"
    return {"horizon_days": str(model.horizon_days), "target": target}
