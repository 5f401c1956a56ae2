"""`crm train`: find player clusters on the running service, and show them; scores beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.commands import scores
from cluster.commands.support import Promote, connected, emit_json, said_of

if TYPE_CHECKING:
    from rich.table import Table

    from configs.settings import Settings
    from crm.domain.clustering import ClusterProfile, PlayerClusters

AlgorithmName = Literal["kmeans", "minibatch_kmeans", "gmm", "dbscan", "hdbscan"]
ScalingName = Literal["zscore", "log", "robust", "quantile"]
ReductionName = Literal["none", "pca"]
_train = typer.Typer(help="Train models on what players do.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `train` and what belongs to it to `app`."""
    scores.register(_train)
    app.add_typer(_train, name="train")


@_train.callback()
def train() -> None:
    """Train models on what players do."""


@_train.command("clusters")
def clusters(  # noqa: PLR0913 - the contract's options
    *,
    brand: Annotated[str | None, typer.Option(help="Default: the first brand.")] = None,
    algorithm: Annotated[
        AlgorithmName | None, typer.Option(help="Default: kmeans with --k, else searched.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=2, max=50, help="How many; default: searched.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Names, separated by commas.")] = None,
    scaling: Annotated[
        ScalingName | None, typer.Option(help="Default: zscore with --k, else searched.")
    ] = None,
    reduction: Annotated[
        ReductionName | None, typer.Option(help="Default: none with --k, else searched.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all that is random.")] = 0,
    trials: Annotated[int, typer.Option(min=1, max=1_000, help="Ways to try at most.")] = 16,
    budget_s: Annotated[
        float | None, typer.Option(min=1, help="Begin no new trial after this.")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, max=64, help="Trials on their way together at most.")
    ] = 4,
    min_share: Annotated[
        float, typer.Option(min=0, max=0.5, help="Least share of a cluster in a search.")
    ] = 0.01,
    export: Annotated[
        Path | None, typer.Option(help="Write player and cluster to this .csv or .parquet.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the model card, pictures and tables to this folder.")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Save each cluster's rule as a segment.")
    ] = False,
    promote: Promote = "first",
    run: Annotated[
        str | None, typer.Option(help="A run's id: goes on with it if it was cut off.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Group the players of a brand by what they do; the first model of a brand serves at once."""
    from configs.brands import load_brands
    from crm.adapters import clock
    from crm.domain.brands import choose
    from pipelines import clustering
    from pipelines.cluster_inputs import Request, check_request

    if export is not None:
        clustering.check_export(export)
    with connected() as settings:
        request = Request(
            brand=choose(load_brands(settings.brands_dir), brand),
            algorithm=algorithm,
            k=k,
            features=None if features is None else tuple(_names(features)),
            scaling=scaling,
            reduction=reduction,
            seed=seed,
            budget_s=budget_s,
            trials=trials,
            at_once=at_once,
            min_share=min_share,
        )
        check_request(request)  # before any work
        done = clustering.run(settings, request, clock.now, rule=promote, run_id=run)
        if export is not None:
            clustering.export(done.trained, export)
        if out is not None:
            clustering.write_files(done.handed_over, out)
        saved = saved_as_segments(settings, done.trained.model) if segments else []
    if json:
        stands = {"state": done.registered.state, "number": done.registered.number}
        emit_json({**as_json(done.trained.model), **stands, "segments": saved})
        return
    _print(done.trained.model)
    typer.echo(said_of(done.registered))
    for one in saved:
        typer.echo(f"cluster {one['cluster']}: {one['said']}")


def saved_as_segments(settings: Settings, model: PlayerClusters) -> list[dict[str, Any]]:
    """Save the rule of each cluster as a segment of its name; say of each what came of it."""
    import asyncio

    from cluster.commands.saved_segments import saved_segments
    from configs.brands import load_brands
    from crm.domain.errors import CrmError
    from crm.services.clustering import save_as_segment

    brand = load_brands(settings.brands_dir)[model.brand]

    async def save() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with saved_segments(settings) as segments:
            for one in model.clusters:
                try:
                    done = await save_as_segment(model, one.id, segments, brand, None, None)
                except CrmError as error:
                    found.append({"cluster": one.id, "segment": None, "said": error.message})
                else:
                    name, said = done.segment.name, f"segment {done.segment.id}"
                    found.append(
                        {"cluster": one.id, "segment": done.segment.id, "said": f"{said}: {name}"}
                    )
        return found

    return asyncio.run(save())


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def as_json(model: PlayerClusters) -> dict[str, Any]:
    """Return what the contract prints of a trained model."""
    return {
        "id": model.id,
        "algorithm": model.algorithm,
        "k": model.metrics.k,
        "wcss": model.metrics.wcss,
        "silhouette": model.metrics.silhouette,
        "stability": model.metrics.stability,
        "score": model.metrics.score,
        "dbcv": model.metrics.dbcv,
        "noise": model.metrics.noise,
        "players": model.metrics.players,
        "features": model.features,
        "scaling": model.scaler.method,
        "axes": None if model.axes is None else len(model.axes),
        "wcss_scaling": model.metrics.wcss_scaling,
        "before": model.before,
        "moves": [
            {"before": one.before, "after": one.after, "players": one.players}
            for one in model.moves
        ],
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
