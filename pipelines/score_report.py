"""What a trained score leaves for people: a card in Markdown, tables, and plots of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from crm.adapters.scorers import open_scorer
from crm.domain.clustering import Floats
from crm.domain.drift import REFERENCE, Reference, encode, reference
from crm.domain.feature_list import features_of
from crm.domain.models import ScoreTarget, TrainedModel
from pipelines.asked import noted
from pipelines.code_version import code_version
from pipelines.score_metrics import bins, gains
from pipelines.score_training import Request, TrainedScore

_SHOWN = {
    "churn": ("auc", "log_loss", "brier", "calibration_error", "lift", "mean", "rate"),
    "value": ("mae", "rmse", "spearman", "lift", "total", "true_total"),
}
_TARGETS: dict[ScoreTarget, str] = {
    "churned": "no bet and no deposit",
    "ngr_amount": "net gaming revenue (stakes less payouts less bonuses)",
    "deposit_amount": "money deposited (the brand has no bets)",
    "deposit_days": "days with a deposit",
    "bet_days": "days with a bet",
}
_EXPLAINED_ROWS = 2_000  # of the newest test, for the mean effect of each feature
_MOST_SHOWN = 15
_PLAYERS_SHOWN = 5


def files_of(trained: TrainedScore) -> dict[str, bytes]:
    """Return card, tables and plots by name."""
    tables = {
        "metrics.csv": _metrics(trained),
        "calibration.csv": _calibration(trained),
        "gain.csv": _gain(trained),
        "effects.csv": _effects(trained),
    }
    if trained.model.ranks:
        tables["ranks.csv"] = _ranks(trained)
    plots = _plots(trained, tables)
    found = {name: table.write_csv().encode() for name, table in tables.items()}
    found[REFERENCE] = encode(_of_now(trained))
    return {"card.md": _card(trained, tables, sorted(plots)).encode(), **found, **plots}


def _of_now(trained: TrainedScore) -> Reference:
    """Return what drift is measured against: players of the newest cut-off, and their scores."""
    model = trained.model
    return reference(model.features, trained.values, trained.newest.said[model.algorithm])


def handed_over(request: Request, trained: TrainedScore) -> TrainedModel:
    """Return what goes into the registry."""
    model = trained.model
    return TrainedModel(
        id=model.id,
        brand=model.brand,
        kind=model.kind,
        algorithm=model.algorithm,
        created_at=model.created_at,
        seed=request.seed,
        features=model.features,
        feature_list=features_of(request.brand).version,
        code_version=code_version(),
        data=trained.data,
        params={
            **noted(request.as_params()),
            "horizon_days": str(model.horizon_days),
            "target": model.target,
            "label_days": str(trained.plan.label_days),
            "test": f"{trained.plan.trials[0].test.as_of:%Y-%m-%dT%H:%M:%SZ}",
            "rounds": str(trained.rounds),
            "power": f"{trained.power:.6g}",
        },
        metrics=metrics_of(trained),
        beats_baseline=trained.beats_baseline,
        document=msgspec.json.encode(model),
        files=files_of(trained),
    )


def metrics_of(trained: TrainedScore) -> dict[str, float]:
    """Return the figures for the registry: of this model plain, of each other one by its name."""
    found: dict[str, float] = {}
    for one in trained.of_newest():
        prefix = "" if one.model == trained.model.algorithm else f"{one.model}_"
        found |= {f"{prefix}{name}": value for name, value in one.metrics.items()}
    return found | {"test_players": float(len(trained.newest.players))}


def _metrics(trained: TrainedScore) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "test": f"{one.as_of:%Y-%m-%d}", "players": one.group, "count": one.players,
                "model": one.model, **one.metrics,
            }
            for one in trained.tested
        ]
    )  # fmt: skip


def _calibration(trained: TrainedScore) -> pl.DataFrame:
    newest = trained.newest
    return pl.DataFrame(
        [
            {"model": name, "tenth": number, **msgspec.structs.asdict(one)}
            for name, said in newest.said.items()
            for number, one in enumerate(bins(said, newest.truth), 1)
        ]
    )


def _gain(trained: TrainedScore) -> pl.DataFrame:
    newest = trained.newest
    return pl.DataFrame(
        [
            {"model": name, **msgspec.structs.asdict(one)}
            for name, said in newest.said.items()
            for one in gains(said, newest.truth)
        ]
    )


def _ranks(trained: TrainedScore) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "rank": [rank.name for rank in trained.model.ranks],
            "least": [rank.least for rank in trained.model.ranks],
            "players": trained.rank_sizes,
            "realised": [rank.realised for rank in trained.model.ranks],
        },
        schema_overrides={"realised": pl.Float64},
    )


def _effects(trained: TrainedScore) -> pl.DataFrame:
    """Return the mean size of each feature's effect on the newest test's players."""
    features = trained.model.features
    sums = dict.fromkeys(features, 0.0)
    rows = trained.values[:: max(len(trained.values) // _EXPLAINED_ROWS, 1)]
    for reasons in open_scorer(trained.model).reasons(rows, most=len(features)):
        for reason in reasons:
            sums[reason.feature] += abs(reason.effect) / len(rows)
    frame = pl.DataFrame({"feature": list(sums), "mean_effect": list(sums.values())})
    return frame.sort("mean_effect", descending=True, maintain_order=True)


def _card(trained: TrainedScore, tables: dict[str, pl.DataFrame], plots: Sequence[str]) -> str:
    model, plan = trained.model, trained.plan
    parts = [
        f"# {model.kind.capitalize()} of {model.brand}: {model.algorithm}",
        f"Model {model.id}, trained {model.created_at:%Y-%m-%d %H:%M} UTC.",
        "## What it says",
        _says(trained),
        "## What it was trained on",
        _data(trained),
        "## How good it is",
        _tests(model.horizon_days),
        _table(tables["metrics.csv"], ["test", "players", "count", "model", *_SHOWN[model.kind]]),
        _verdict(trained),
    ]
    if trained.bgnbd is not None:
        parts.append(_reference(trained))
    if model.ranks:
        parts += ["## Ranks", "`realised` is how many of a rank's players left in fact.",
                  _table(tables["ranks.csv"])]  # fmt: skip
    parts += [
        "## Calibration",
        "The players of the newest test in tenths by score: what was said, and what came true.",
        _table(tables["calibration.csv"].filter(pl.col("model") == model.algorithm).drop("model")),
        "## What moves it",
        f"The mean size of each feature's effect, {_unit(trained)}.",
        _table(tables["effects.csv"].head(_MOST_SHOWN)),
        "## Sample players",
        _samples(trained),
        "## Files",
        "\n".join(f"- {name}" for name in (*sorted(tables), *plots)),
    ]
    if len(plan.trials) == 1:
        parts.insert(9, "There is only one test: the history is too short for a second one.")
    return "\n\n".join(parts) + "\n"


def _tests(days: int) -> str:
    return (
        "Labels of a test begin where those of its fits had ended; all models are asked about the"
        f" same players. *At risk* are those with a bet or a deposit in the {days} days before:"
        " nobody else can leave any more. The lift is that of the top tenth."
    )


def _says(trained: TrainedScore) -> str:
    model = trained.model
    target = _TARGETS[model.target]
    if model.kind == "churn":
        return (
            f"The probability of {target} in the next {model.horizon_days} days, for every player"
            " that has done anything yet."
        )
    unit = f", in {model.currency.code}" if model.in_money else ""
    return f"How much a player is expected to bring in {model.horizon_days} days: {target}{unit}."


def _data(trained: TrainedScore) -> str:
    data, plan = trained.data, trained.plan
    trials = "\n".join(
        f"- tested on {trial.test.as_of:%Y-%m-%d %H:%M} UTC ({trial.test.days} days ahead), fitted"
        f" at {', '.join(f'{cut.as_of:%Y-%m-%d}' for cut in trial.fit)}"
        f" ({', '.join(dict.fromkeys(str(cut.days) for cut in trial.fit))} days ahead)"
        for trial in plan.trials
    )
    text = (
        f"{data.players:,} players, {data.rows:,} rows; features as of each cut-off, of what was"
        f" known by then. {len(trained.model.features)} features"
        f"{f', {trained.rounds} trees' if trained.rounds else ''}."
        f" SHA-256 of all rows: `{data.digest}`.\n\n{trials}"
    )
    if plan.label_days != trained.model.horizon_days:
        text += (
            f"\n\nThe history is too short for labels of {trained.model.horizon_days} days before"
            " the test: each fit looks as far ahead as it can, and what it sees stands for as much"
            f" more as the power {trained.power:.3f} of the time says. The power was taken from how"
            " what players do had worn off before the test."
        )
    return text


def _verdict(trained: TrainedScore) -> str:
    if trained.beats_baseline:
        return f"**{trained.model.algorithm} beats every baseline on the newest test.**"
    return (
        f"**{trained.model.algorithm} does not beat every baseline on the newest test:** it is not"
        " promoted by itself."
    )


def _reference(trained: TrainedScore) -> str:
    one = trained.bgnbd
    if one is None:
        return ""
    return (
        f"BG/NBD, fitted to the same players at the newest test (weeks): r {one.r:.3f}, alpha"
        f" {one.alpha:.3f}, a {one.a:.3f}, b {one.b:.3f}, log-likelihood {one.log_likelihood:.1f}."
    )


def _unit(trained: TrainedScore) -> str:
    if trained.model.kind == "churn":
        return "in log-odds"
    if trained.logarithmic:
        return "on the logarithm of the score"
    return "in the score's unit"


def _samples(trained: TrainedScore) -> str:
    """Return the highest scores of the newest test, with their reasons."""
    said = trained.newest.said[trained.model.algorithm]
    places = (-said).argsort(kind="stable")[:_PLAYERS_SHOWN]
    values: Floats = trained.values[places]
    lines = ["| player | score | reasons |", "|---|---|---|"]
    for place, reasons in zip(places, open_scorer(trained.model).reasons(values), strict=True):
        why = ", ".join(
            f"{one.feature} {'missing' if one.value is None else f'{one.value:g}'}"
            f" ({one.effect:+.2f})"
            for one in reasons
        )
        lines.append(f"| {_cell(trained.newest.players[place])} | {said[place]:.3f} | {why} |")
    return "\n".join(lines)


def _table(frame: pl.DataFrame, columns: Sequence[str] | None = None) -> str:
    names = list(columns or frame.columns)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in frame.select(names).iter_rows()]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"  # noqa: PLR2004 - digits
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plots(trained: TrainedScore, tables: dict[str, pl.DataFrame]) -> dict[str, bytes]:
    from pipelines.score_plots import plot_calibration, plot_gain, plot_ranks

    found = {
        "calibration.png": plot_calibration(trained.model.kind, tables["calibration.csv"]),
        "gain.png": plot_gain(tables["gain.csv"]),
    }
    if trained.model.ranks:
        found["ranks.png"] = plot_ranks(tables["ranks.csv"])
    return found
