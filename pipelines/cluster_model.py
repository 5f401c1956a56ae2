"""A training from columns to a TrainedModel, wherever its work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from crm.domain.cluster_shapes import Ints
from crm.domain.clustering import CannotCluster
from crm.domain.drift import REFERENCE, cluster_reference, encode
from crm.domain.feature_list import features_of
from crm.domain.models import TrainedModel, TrainedOn
from crm.domain.ports import Columns
from pipelines.asked import noted
from pipelines.cluster_card import card_of
from pipelines.cluster_engine import Engine
from pipelines.cluster_fits import settle
from pipelines.cluster_inputs import FIT_SAMPLE, Prepared, Request, prepare
from pipelines.cluster_plots import data_of, files_of
from pipelines.cluster_quality import sampled
from pipelines.cluster_report import Origin, Trained, describe
from pipelines.cluster_search import SEARCH_SAMPLE, Candidate, Tell, check_clear, choose
from pipelines.cluster_tune import Effort
from pipelines.code_version import code_version
from pipelines.model_registry import data_digest

ASSIGNED_AT_ONCE = 250_000


@dataclass(frozen=True)
class Made:
    """A training: what goes into the registry, and whom it has put where."""

    trained: Trained
    handed_over: TrainedModel


def train(columns: Columns, request: Request, origin: Origin, engine: Engine, tell: Tell) -> Made:
    """Cluster the players of `columns`; raises CannotCluster, NoClearGrouping."""
    prepared = engine.call(prepare, columns, request)
    begun: Prepared = engine.get(prepared)
    space = request.space(len(begun.features))
    effort = Effort(request.most_trials, request.at_once, request.budget_s)
    candidates = list(engine.search(begun.sample, space, effort, tell))
    chosen = choose(candidates, request.k, request.min_share)
    settled = engine.call(settled_on_more, prepared, chosen, request)
    step = ASSIGNED_AT_ONCE
    parts = [
        engine.call(assigned, prepared, settled, start, start + step)
        for start in range(0, len(columns.player_ids), step)
    ]
    groups = np.concatenate(engine.get(parts))
    made = engine.call(
        explained, columns, request, prepared, settled, groups, origin, _slim(candidates)
    )
    found: Made = engine.get(made)
    return found


def settled_on_more(
    prepared: Prepared, chosen: Candidate, request: Request
) -> tuple[Candidate, int | None]:
    """Return the choice as it is on more players than were searched, and how many groups are apart.

    Raises NoClearGrouping unless k was given.
    """
    apart = check_clear(prepared.sample, chosen) if request.k is None else None
    if len(prepared.values) <= SEARCH_SAMPLE or chosen.found is None:
        return chosen, apart
    rows = sampled(len(prepared.values), FIT_SAMPLE, request.seed)
    points = chosen.points(prepared.values[rows])
    found = settle(points, chosen.plan.algorithm, chosen.found, chosen.plan.seed)
    return msgspec.structs.replace(chosen, found=found), apart


def assigned(
    prepared: Prepared, settled: tuple[Candidate, int | None], start: int, end: int
) -> Ints:
    """Return the groups of some of the players."""
    return settled[0].groups(prepared.values[start:end])


def explained(
    columns: Columns,
    request: Request,
    prepared: Prepared,
    settled: tuple[Candidate, int | None],
    groups: Ints,
    origin: Origin,
    candidates: Sequence[Candidate],
) -> Made:
    """Return the model with its words, pictures and card; raises CannotCluster."""
    chosen, apart = settled
    left = np.unique(groups[groups >= 0])
    if request.k is None and len(left) < 2:  # noqa: PLR2004 - one group groups nobody
        raise CannotCluster("no clear grouping: of all players, only one group is left")
    trained = describe(columns, request, prepared, chosen, groups, origin)
    model = trained.model
    data = TrainedOn(
        players=len(columns.player_ids),
        rows=len(columns.player_ids),
        as_of=columns.as_of,
        digest=data_digest(columns.player_ids, prepared.values),
    )
    files = files_of(model, data_of(trained, candidates))
    card = card_of(model, data, request.as_params(), candidates, apart)
    metrics = {
        name: float(value)
        for name, value in msgspec.structs.asdict(model.metrics).items()
        if isinstance(value, int | float) and np.isfinite(value)
    }
    handed_over = TrainedModel(
        id=model.id,
        brand=model.brand,
        kind="clusters",
        algorithm=model.algorithm,
        created_at=model.created_at,
        seed=model.seed,
        features=model.features,
        feature_list=features_of(request.brand).version,
        code_version=code_version(),
        data=data,
        params={
            **noted(request.as_params()),
            "k": str(model.metrics.k),
            "scaling": model.scaler.method,
            "reduction": chosen.plan.reduction,
            "features": ",".join(model.features),
            "algorithm": model.algorithm,
            **{name: f"{value:g}" for name, value in chosen.best.setting.items() if name != "k"},
        },
        metrics=metrics | ({} if apart is None else {"apart": float(apart)}),
        beats_baseline=None,
        document=msgspec.json.encode(model),
        files={
            "card.md": card.encode(),
            REFERENCE: encode(cluster_reference(model, prepared.values)),
            **files,
        },
    )
    return Made(trained, handed_over)


def _slim(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return what was tried without what was found: a card tells of it, and needs no more."""
    return [
        one if one.found is None else msgspec.structs.replace(one, found=one.found.outline())
        for one in candidates
    ]
