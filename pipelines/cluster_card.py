"""The model card of a clustering: Markdown that a marketer can read from the top down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crm.domain.clustering import NOISE, ClusterProfile, PlayerClusters, show_value
from crm.domain.models import TrainedOn
from pipelines.cluster_fits import DENSITIES
from pipelines.cluster_search import Candidate

_SHOWN_TRIALS = 10
_LIMITS = (
    "Clusters say how players resemble each other in the features above, at that moment. They "
    "foretell nothing, and a player near a border may move with the next bet. They are not to be "
    "used to find players who can be harmed by more play."
)


def card_of(
    model: PlayerClusters,
    data: TrainedOn,
    params: dict[str, str],
    candidates: Sequence[Candidate],
    apart: int | None,
) -> str:
    """Return the card; `apart` is how many groups stand apart, None where k was given."""
    metrics = model.metrics
    lines = [
        f"# Player clusters of {model.brand}",
        "",
        _when(model, data),
        "",
        *_clusters(model),
        "## How sure it is",
        "",
        *_table(("measure", "value", "reads as"), _measures(model, apart)),
        "",
        "![sizes](sizes.png) ![profiles](profiles.png)",
        "![projection](projection.png) ![silhouette](silhouette.png)",
        "",
        *_moved(model),
        "## How it was found",
        "",
        _how(model),
        f"Asked for: {', '.join(f'{name} {value}' for name, value in params.items())}.",
        f"Data digest `{data.digest}`.",
        "",
        *_trials(candidates, given=metrics.score is None),
        "## What it is not",
        "",
        _LIMITS,
        "",
    ]
    return "\n".join(lines)


def _when(model: PlayerClusters, data: TrainedOn) -> str:
    return (
        f"Model `{model.id}`, trained {model.created_at:%Y-%m-%d %H:%M} UTC on {data.players:,} "
        f"players as they were at {data.as_of:%Y-%m-%d %H:%M:%S} UTC."
    )


def _how(model: PlayerClusters) -> str:
    reduced = "no reduction" if model.axes is None else f"reduced to {len(model.axes)} axes"
    features = ", ".join(f"`{name}`" for name in model.features)
    return (
        f"Algorithm {model.algorithm}, scaling {model.scaler.method}, {reduced}, seed {model.seed};"
        f" features {features}."
    )


def _clusters(model: PlayerClusters) -> list[str]:
    lines = []
    for one in model.clusters:
        lines += [f"## {one.id}. {one.name}", "", f"{one.size:,} players, {one.share:.1%}.", ""]
        if one.noise:
            lines += ["These players lie between the groups, or far from all of them.", ""]
        lines += [_difference(model, one, n) for n in range(len(one.differences))]
        lines += ["", _rule(one), "", f"Typical: {', '.join(f'`{p}`' for p in one.players)}", ""]
    return lines


def _difference(model: PlayerClusters, one: ClusterProfile, place: int) -> str:
    each = one.differences[place]
    feature = model.feature(each.feature)
    unit = f" {model.currency.code}" if feature.unit == "money" else ""
    mean, whole = (show_value(feature, value, model.currency) for value in (each.mean, each.whole))
    return (
        f"- `{each.feature}`: {mean}{unit} on average, {whole}{unit} over all players "
        f"({each.effect:+.1f} standard deviations)"
    )


def _rule(one: ClusterProfile) -> str:
    if one.rule is None:
        return "No short rule selects about the same players."
    return (
        f"Rule: `{one.rule}` ({one.precision:.0%} of whom it selects are in the cluster, and it "
        f"selects {one.recall:.0%} of the cluster)"
    )


def _measures(model: PlayerClusters, apart: int | None) -> list[tuple[str, str, str]]:
    metrics = model.metrics
    rows = [
        ("silhouette", f"{metrics.silhouette:.3f}", "1 = far apart, 0 = no grouping"),
        (
            "stability",
            f"{metrics.stability:.3f}",
            "adjusted Rand index over resamples; 1 = the same",
        ),
        ("within-cluster sum of squares", f"{metrics.wcss:,.1f}", f"on {metrics.wcss_scaling}"),
    ]
    if model.algorithm in DENSITIES:
        rows += [
            ("DBCV", f"{metrics.dbcv or 0:.3f}", "1 = dense and far apart, 0 or less = none"),
            ("noise", f"{metrics.noise:.1%}", f"in no group: cluster {NOISE}"),
        ]
    if metrics.score is not None:
        rows.append(("objective", f"{metrics.score:.3f}", "what the search ranks by"))
    if apart is not None:
        rows.append(("groups that stand apart", f"{apart}", "with a valley between them"))
    return rows


def _moved(model: PlayerClusters) -> list[str]:
    if not model.moves:
        return []
    stayed = sum(one.players for one in model.moves if one.before == one.after)
    total = sum(one.players for one in model.moves)
    names = {one.id: one.name for one in model.clusters}
    rows = [
        (str(one.before), f"{one.after} {names.get(one.after, '')}".strip(), f"{one.players:,}")
        for one in sorted(model.moves, key=lambda one: -one.players)
    ]
    return [
        "## Who moved where",
        "",
        f"Model `{model.before}` puts {stayed / total:.1%} of today's players into the same one.",
        "",
        *_table(("before", "now", "players"), rows),
        "",
    ]


def _trials(candidates: Sequence[Candidate], *, given: bool) -> list[str]:
    if given:
        starts = sum(one.plan.starts for one in candidates)
        return [f"The number of groups was given; the best of {starts} starts.", ""]
    best = sorted(candidates, key=lambda one: (-one.score, one.plan.digest))[:_SHOWN_TRIALS]
    rows = [
        (
            one.plan.algorithm,
            one.plan.scaling,
            one.plan.reduction,
            str(one.best.k) if one.found else "-",
            f"{one.best.quality:.3f}",
            "-" if one.best.stability is None else f"{one.best.stability:.3f}",
            f"{one.best.smallest:.1%}",
            f"{one.score:.3f}" if one.score > -1 else "no",
        )
        for one in best
    ]
    head = (
        "algorithm", "scaling", "reduction", "k", "silhouette or DBCV", "stability", "smallest",
        "objective",
    )  # fmt: skip
    return [f"The best of {len(candidates)} trials:", "", *_table(head, rows), ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
