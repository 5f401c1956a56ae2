"""`crm train churn` and `crm train value`: train a score on the past, and show how good it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.commands.support import Promote, connected, emit_json, said_of

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.score_training import Request, TrainedScore
    from pipelines.scores import Run

_Brand = Annotated[str | None, typer.Option(help="Default: the first brand.")]
_Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all that is random.")]
_Features = Annotated[
    str | None, typer.Option(help="Names, separated by commas; default: chosen by the fit.")
]
_Without = Annotated[str | None, typer.Option(help="Features to leave out.")]
_Until = Annotated[
    datetime | None,
    typer.Option(help="Look at nothing later (UTC); default: the brand's last event."),
]
_Out = Annotated[
    Path | None, typer.Option(help="A new folder for the card, the tables and the plots.")
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(train: typer.Typer) -> None:
    """Add `churn` and `value` to the training commands."""
    train.command("churn")(churn)
    train.command("value")(value)


def churn(  # noqa: PLR0913 - options
    *,
    brand: _Brand = None,
    horizon_days: Annotated[
        int, typer.Option(min=1, max=365, help="Gone: no bet and no deposit for so many days.")
    ] = 30,
    algorithm: Annotated[Literal["xgboost", "logistic"], typer.Option(help="What to train.")] = (
        "xgboost"
    ),
    features: _Features = None,
    without: _Without = None,
    until: _Until = None,
    seed: _Seed = 0,
    promote: Promote = "first",
    out: _Out = None,
    json: _Json = False,
) -> None:
    """Foresee who leaves; tested beside a logistic model and beside recency alone."""
    from pipelines.score_training import Request

    _run(
        Request(
            brand=_chosen(brand),
            kind="churn",
            horizon_days=horizon_days,
            algorithm=algorithm,
            features=_names(features),
            without=_names(without) or (),
            until=_moment(until),
            seed=seed,
        ),
        promote,
        out,
        json=json,
    )


def value(  # noqa: PLR0913 - options
    *,
    brand: _Brand = None,
    target: Annotated[
        Literal["money", "count"],
        typer.Option(help="Net gaming revenue (a shop: deposits), or days with a deposit."),
    ] = "money",
    horizon_days: Annotated[int, typer.Option(min=1, max=730, help="In so many days.")] = 90,
    algorithm: Annotated[Literal["xgboost", "linear"], typer.Option(help="What to train.")] = (
        "xgboost"
    ),
    features: _Features = None,
    without: _Without = None,
    until: _Until = None,
    seed: _Seed = 0,
    promote: Promote = "first",
    out: _Out = None,
    json: _Json = False,
) -> None:
    """Foresee what players will bring; tested beside a linear model and beside recency alone."""
    from pipelines.score_training import Request

    _run(
        Request(
            brand=_chosen(brand),
            kind="value",
            horizon_days=horizon_days,
            target=target,
            algorithm=algorithm,
            features=_names(features),
            without=_names(without) or (),
            until=_moment(until),
            seed=seed,
        ),
        promote,
        out,
        json=json,
    )


def _run(
    request: Request,
    promote: Promote,
    out: Path | None,
    *,
    json: bool,
) -> None:
    from crm.adapters import clock
    from pipelines import scores

    request.check()
    if out is not None:
        scores.check_out(out)
    with connected() as settings:
        done = scores.run(settings, request, clock.now, promote)
    if out is not None:
        scores.write(done, out)
    if json:
        emit_json(scores.report(done))
    else:
        _print(done)


def _chosen(brand: str | None) -> Any:
    from configs.brands import load_brands
    from configs.settings import load_settings
    from crm.domain.brands import choose

    return choose(load_brands(load_settings().brands_dir), brand)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _moment(until: datetime | None) -> datetime | None:
    return until and until.replace(tzinfo=UTC)


def _print(done: Run) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a pipe has no width of its own
    trained = done.trained
    console.print(as_table(trained))
    if trained.model.ranks:
        ranks = ", ".join(
            f"{rank.name} {size:,}"
            + ("" if rank.realised is None else f" ({rank.realised:.0%} left)")
            for rank, size in zip(trained.model.ranks, trained.rank_sizes, strict=True)
        )
        console.print(f"ranks on the newest test: {ranks}", highlight=False)
    beats = "beats every baseline" if trained.beats_baseline else "does not beat every baseline"
    console.print(
        f"{trained.model.algorithm} {beats}; {len(trained.model.features)} features,"
        f" {trained.data.players:,} players, {trained.data.rows:,} rows;"
        f" {said_of(done.registered)}",
        highlight=False,
    )


def as_table(trained: TrainedScore) -> Table:
    """Return how each model did at each test, on the same rows."""
    from rich.table import Table

    model = trained.model
    shown = {
        "churn": {"AUC": "auc", "log loss": "log_loss", "calibration error": "calibration_error",
                  "lift, top tenth": "lift", "said": "mean", "left": "rate"},
        "value": {"mean error": "mae", "rank correlation": "spearman", "lift, top tenth": "lift",
                  "said in all": "total", "in fact": "true_total"},
    }[model.kind]  # fmt: skip
    table = Table(title=f"{model.kind.capitalize()} of {model.brand}, {model.horizon_days} days")
    for name in ("test", "players", "model"):
        table.add_column(name)
    for name in shown:
        table.add_column(name, justify="right")
    for one in trained.tested:
        table.add_row(
            f"{one.as_of:%Y-%m-%d}",
            f"{one.players:,} {one.group}",
            one.model,
            *(f"{one.metrics[measure]:,.3f}" for measure in shown.values()),
        )
    return table
