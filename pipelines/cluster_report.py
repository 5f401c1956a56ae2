"""A clustering described: clusters by size, with names, means, rules, samples, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.cluster_names import names_of
from crm.domain.cluster_shapes import Cores, Flags, Floats, Ints, Mixture, along
from crm.domain.clustering import (
    DESCRIBING_FEATURES,
    NOISE,
    ClusterProfile,
    Difference,
    Metrics,
    PlayerClusters,
    Scaler,
    assign,
)
from crm.domain.feature_list import features_of
from crm.domain.features import FEATURES
from crm.domain.ports import Columns
from pipelines.cluster_fits import DENSITIES, Fit
from pipelines.cluster_inputs import Prepared, Request, matrix, varying
from pipelines.cluster_matching import matched, moves_of
from pipelines.cluster_quality import sampled, silhouettes, stability
from pipelines.cluster_rules import short_rule
from pipelines.cluster_search import SEARCH_SAMPLE, Candidate, refitted

SAMPLE_PLAYERS = 5
SHOWN_DIFFERENCES = 5
SILHOUETTE_ROWS = 10_000
_NOISE_NAME = "In no group"


@dataclass(frozen=True)
class Trained:
    """A model, each player's cluster in the order of `player_ids`, and what pictures are made of.

    `silhouettes` are NaN but for a sample; `common` are all players in the common space.
    """

    model: PlayerClusters
    player_ids: list[str]
    labels: Ints
    silhouettes: Floats
    common: Floats


@dataclass(frozen=True)
class Origin:
    """Which run a model is of, when it was begun, and the model that served before."""

    id: str
    at: datetime
    before: PlayerClusters | None = None


def describe(
    columns: Columns,
    request: Request,
    prepared: Prepared,
    chosen: Candidate,
    groups: Ints,
    origin: Origin,
) -> Trained:
    """Return the model: clusters by size, with names, means, rules, sample players and metrics."""
    features, values = prepared.features, prepared.values
    found, groups = _by_size(chosen, groups)
    points = chosen.points(values)
    former = _former(columns, request, origin.before)
    ids = list(range(1, found.k + 1))
    if former is not None and origin.before is not None:
        known = [one.id for one in origin.before.clusters]
        ids = matched(groups, found.k, former, known, origin.before.highest_id)
    labels = np.array([*ids, NOISE])[groups]
    shown = list(dict.fromkeys((*features, *varying(columns, DESCRIBING_FEATURES))))
    sight = (shown, matrix(columns, shown, request.brand))
    common = prepared.sample.scalers[prepared.sample.common].transform(values)
    silhouette = silhouettes(common, groups, request.seed, SILHOUETTE_ROWS)
    listed = [(one, place) for place, one in enumerate(ids)]
    if found.cores is not None:  # an outlier may come when there was none to learn from
        listed.append((NOISE, -1))
    known_features = features_of(request.brand).features
    model = PlayerClusters(
        id=origin.id,
        brand=request.brand.id,
        created_at=origin.at,
        algorithm=chosen.plan.algorithm,
        seed=request.seed,
        currency=request.brand.currency,
        features=list(features),
        scaler=chosen.scaler,
        centroids=found.centroids,
        metrics=_metrics(request, prepared, chosen, groups, points, silhouette),
        whole=_means(*sight),
        clusters=_profiles(columns, request, features, (groups, points, found), sight, listed),
        default_cluster=0,
        own=[one for name, one in known_features.items() if name in shown and name not in FEATURES],
        axes=chosen.axes,
        mixture=found.mixture,
        cores=found.cores,
        ids=ids,
        last_id=max(*ids, origin.before.highest_id if origin.before else 0),
        before=origin.before.id if origin.before else None,
        moves=[] if former is None else moves_of(former, labels),
    )
    clusters = [
        msgspec.structs.replace(one, silhouette=_mean_of(silhouette[labels == one.id]))
        for one in model.clusters
    ]
    model = msgspec.structs.replace(
        model, clusters=clusters, default_cluster=_default(model, found, chosen)
    )
    return Trained(model, columns.player_ids, labels, silhouette, common)


def _by_size(chosen: Candidate, groups: Ints) -> tuple[Fit, Ints]:
    """Return fit and groups with the groups in the order of their sizes, the largest first."""
    found = chosen.shape
    order = np.argsort(-np.bincount(groups[groups >= 0], minlength=found.k), kind="stable")
    place = np.argsort(order)
    mixture, cores = found.mixture, found.cores
    if mixture is not None:
        mixture = Mixture(*[[part[n] for n in order] for part in msgspec.structs.astuple(mixture)])
    if cores is not None:
        cores = Cores(cores.points, place[cores.group].tolist(), cores.reach)
    fit = Fit([found.centroids[n] for n in order], mixture, cores, found.loss)
    return fit, np.append(place, -1)[groups]


def _former(columns: Columns, request: Request, before: PlayerClusters | None) -> Ints | None:
    """Return where the model before puts these players, if its features are still there."""
    known = features_of(request.brand).features
    if before is None or any(
        name not in known or name not in columns.values for name in before.features
    ):
        return None
    return assign(before, matrix(columns, before.features, request.brand))


def _metrics(
    request: Request,
    prepared: Prepared,
    chosen: Candidate,
    groups: Ints,
    points: Floats,
    silhouette: Floats,
) -> Metrics:
    """Measure the clustering; `wcss` is on z-scores unless a scaling was asked for."""
    scaling = request.scaling or "zscore"
    space = Scaler.fit(scaling, prepared.values).transform(prepared.values)
    searched, best, k = request.k is None, chosen.best, chosen.best.k
    density = chosen.plan.algorithm in DENSITIES
    stable = best.stability if searched else _stability(chosen, groups, points, request.seed)
    return Metrics(
        k=k,
        players=len(points),
        wcss=_wcss(space, groups, k),
        wcss_scaling=scaling,
        silhouette=_mean_of(silhouette) or 0.0,
        stability=stable or 0.0,
        score=best.score if searched else None,
        dbcv=best.quality if density else None,
        noise=float((groups < 0).mean()),
    )


def _stability(chosen: Candidate, groups: Ints, points: Floats, seed: int) -> float:
    rows = sampled(len(points), SEARCH_SAMPLE, seed)
    refit = partial(refitted, plan=chosen.plan, setting=chosen.best.setting)
    return stability(points[rows], groups[rows], refit, seed)


def _wcss(space: Floats, groups: Ints, k: int) -> float:
    """Return the sum of squares within the groups; the noise is no group."""
    return float(
        sum(
            ((space[groups == group] - space[groups == group].mean(axis=0)) ** 2).sum()
            for group in range(k)
            if (groups == group).any()
        )
    )


def _mean_of(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _means(names: Sequence[str], values: Floats) -> dict[str, float]:
    """Return the means of what is not missing; 0 where everything is."""
    known = (~np.isnan(values)).sum(axis=0)
    sums = np.nansum(values, axis=0)
    return {
        name: float(total / count) if count else 0.0
        for name, total, count in zip(names, sums, known, strict=True)
    }


def _profiles(
    columns: Columns,
    request: Request,
    features: Sequence[str],
    grouping: tuple[Ints, Floats, Fit],
    sight: tuple[list[str], Floats],
    listed: Sequence[tuple[int, int]],
) -> list[ClusterProfile]:
    (groups, points, found), (shown, values) = grouping, sight
    whole = _means(shown, values)
    means = [_means(shown, values[groups == place]) for _, place in listed]
    named = [means[n] for n, (one, _) in enumerate(listed) if one != NOISE]
    names = [*names_of(named, whole), _NOISE_NAME]
    raw = {name: columns.values[name] for name in features}
    typical = Scaler.fit("log", values).transform(values)
    profiles = []
    for (one, place), name, mean in zip(listed, names, means, strict=False):
        inside = groups == place
        rule = short_rule(raw, columns.missing, inside)
        anybody = bool(inside.any())
        of_noise = place < 0 and anybody
        middle = points[inside].mean(axis=0) if of_noise else np.array(found.centroids[place])
        profiles.append(
            ClusterProfile(
                id=one,
                name=name,
                size=int(inside.sum()),
                share=float(inside.mean()),
                means=mean if anybody else {},
                rule=rule.text(request.brand) if rule else None,
                precision=rule.precision if rule else None,
                recall=rule.recall if rule else None,
                players=_nearest_players(columns.player_ids, points, middle, inside),
                differences=_differences(shown, mean, whole, typical[inside]),
                noise=one == NOISE,
            )
        )
    return profiles


def _differences(
    shown: Sequence[str], mean: dict[str, float], whole: dict[str, float], typical: Floats
) -> list[Difference]:
    """Return in what a cluster differs most; `typical` has the mean 0 over all players."""
    if not len(typical):
        return []
    effects = typical.mean(axis=0)
    found = [
        Difference(name, mean[name], whole[name], float(effect))
        for name, effect in zip(shown, effects, strict=True)
    ]
    return sorted(found, key=lambda one: -abs(one.effect))[:SHOWN_DIFFERENCES]


def _nearest_players(
    player_ids: Sequence[str], points: Floats, middle: NDArray[np.float64], inside: Flags
) -> list[str]:
    rows = np.flatnonzero(inside)
    order = np.argsort(((points[rows] - middle) ** 2).sum(axis=1), kind="stable")
    return [player_ids[row] for row in rows[order[:SAMPLE_PLAYERS]]]


def _default(model: PlayerClusters, found: Fit, chosen: Candidate) -> int:
    """Return where a player stands who has done nothing: zero of all, and never seen.

    Noise is no place to begin: then it is the group with the nearest middle.
    """
    nothing = [np.nan if name.startswith("days_since") else 0.0 for name in model.features]
    cluster = int(assign(model, np.array([nothing]))[0])
    if cluster != NOISE:
        return cluster
    point = along(chosen.axes, chosen.scaler.transform(np.array([nothing])))
    away = ((np.array(found.centroids) - point) ** 2).sum(axis=1)
    return model.ids[int(np.argmin(away))]
