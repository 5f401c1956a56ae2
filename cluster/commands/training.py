"""`crm train clusters`: find player clusters on the running service, and show them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.commands.support import connected, emit_json

if TYPE_CHECKING:
    from rich.table import Table

    from crm.domain.clustering import ClusterProfile, PlayerClusters

AlgorithmName = Literal["kmeans", "minibatch_kmeans"]
ScalingName = Literal["zscore", "log", "robust"]
_train = typer.Typer(help="Train models on live features.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `train` and what belongs to it to `app`."""
    app.add_typer(_train, name="train")


@_train.callback()
def train() -> None:
    """Train models on live features."""


@_train.command("clusters")
def clusters(  # noqa: PLR0913 - the contract's options
    *,
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    algorithm: Annotated[AlgorithmName, typer.Option(help="How to group.")] = "kmeans",
    k: Annotated[
        int | None, typer.Option(min=2, max=50, help="How many; default: searched, 2 to 10.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    scaling: Annotated[
        ScalingName | None, typer.Option(help="Default: zscore with --k, else log.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all that is random.")] = 0,
    budget_s: Annotated[
        float | None, typer.Option(min=1, help="End the search after this.")
    ] = None,
    min_share: Annotated[
        float, typer.Option(min=0, max=0.5, help="Least share of a cluster in a search.")
    ] = 0.01,
    export: Annotated[
        Path | None, typer.Option(help="Write player and cluster to this .csv or .parquet.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Group the players of a brand by what they do; the brand's clusters are these from then on."""
    from configs.brands import load_brands
    from crm.adapters import clock
    from crm.domain.brands import choose
    from pipelines import clustering
    from pipelines.cluster_inputs import Request, needed_features

    if export is not None:
        clustering.check_export(export)
    with connected() as settings:
        request = Request(
            brand=choose(load_brands(settings.brands_dir), brand),
            algorithm=algorithm,
            k=k,
            features=None if features is None else tuple(_names(features)),
            scaling=scaling,
            seed=seed,
            budget_s=budget_s,
            min_share=min_share,
        )
        needed_features(request)  # refuse unknown ones before any work
        trained = clustering.run(settings, request, clock.now)
    if export is not None:
        clustering.export(trained, export)
    if json:
        emit_json(as_json(trained.model))
    else:
        _print(trained.model)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def as_json(model: PlayerClusters) -> dict[str, Any]:
    """Return what the contract prints of a trained model."""
    return {
        "algorithm": model.algorithm,
        "k": model.metrics.k,
        "wcss": model.metrics.wcss,
        "silhouette": model.metrics.silhouette,
        "stability": model.metrics.stability,
        "players": model.metrics.players,
        "features": model.features,
        "scaling": model.scaler.method,
        "wcss_scaling": model.metrics.wcss_scaling,
        "clusters": [
            {
                "id": one.id,
                "name": one.name,
                "size": one.size,
                "share": one.share,
                "rule": one.rule,
                "precision": one.precision,
                "recall": one.recall,
            }
            for one in model.clusters
        ],
    }


def _print(model: PlayerClusters) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a pipe has no width of its own
    console.print(as_table(model))
    metrics = model.metrics
    console.print(
        f"{metrics.players:,} players by {', '.join(model.features)} ({model.scaler.method}); "
        f"silhouette {metrics.silhouette:.2f} (1 = apart, 0 = no grouping), "
        f"stability {metrics.stability:.2f} (1 = the same again), "
        f"wcss {metrics.wcss:,.1f} ({metrics.wcss_scaling})",
        highlight=False,
    )


def as_table(model: PlayerClusters) -> Table:
    """Return a table that a marketer reads: who, how many, what they do, and the rule."""
    from rich.table import Table

    table = Table(title=f"Player clusters of {model.brand}", show_lines=True)
    table.add_column("#", justify="right")
    table.add_column("cluster", ratio=2)
    table.add_column("players", justify="right")
    table.add_column("share", justify="right")
    table.add_column("mean (all players)", ratio=3)
    table.add_column("rule (precision, recall)", ratio=3, overflow="fold")
    for one in model.clusters:
        table.add_row(
            str(one.id),
            one.name,
            f"{one.size:,}",
            f"{one.share:.1%}",
            "\n".join(_mean(model, one, name) for name in one.means),
            _rule(one),
        )
    return table


def _mean(model: PlayerClusters, one: ClusterProfile, name: str) -> str:
    money = model.feature(name).unit == "money"
    unit = f" {model.currency.code}" if money else ""
    word = name.removesuffix("_lifetime").removesuffix("_amount").replace("_", " ")
    digits = model.currency.decimals if money else 1
    return f"{word} {one.means[name]:,.{digits}f}{unit} ({model.whole[name]:,.{digits}f})"


def _rule(one: ClusterProfile) -> str:
    if one.rule is None:
        return "no short rule"
    return f"{one.rule}\n({one.precision:.0%}, {one.recall:.0%})"
