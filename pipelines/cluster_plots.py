"""Pictures of a clustering, each as PNG and as the CSV that it was drawn from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from crm.domain.cluster_shapes import along
from crm.domain.clustering import NOISE, PlayerClusters
from pipelines.cluster_quality import sampled
from pipelines.cluster_report import Trained
from pipelines.cluster_search import Candidate, principal_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_PLAYERS = 2_000
_FIT_ROWS = 20_000
_GREY = "#9aa0a6"
# told apart by most eyes, also without colour: Okabe and Ito
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")


def data_of(trained: Trained, candidates: Sequence[Candidate]) -> dict[str, pl.DataFrame]:
    """Return the tables behind the pictures, and of the search and the moves, by name."""
    model = trained.model
    return {
        "sizes": _sizes(model),
        "profiles": _profiles(model),
        "projection": _projection(trained),
        "silhouette": _silhouette(trained),
        "search": _search(candidates),
        "moves": pl.DataFrame(
            [(one.before, one.after, one.players) for one in model.moves],
            schema={"before": pl.Int64, "after": pl.Int64, "players": pl.Int64}, orient="row",
        ),
    }  # fmt: skip


def files_of(model: PlayerClusters, data: dict[str, pl.DataFrame]) -> dict[str, bytes]:
    """Return the pictures and the tables as files."""
    files = {f"{name}.csv": frame.write_csv().encode() for name, frame in data.items()}
    drawn: dict[str, Callable[[Axes], None]] = {
        "sizes": lambda axes: _draw_sizes(axes, model, data["sizes"]),
        "profiles": lambda axes: _draw_profiles(axes, data["profiles"]),
        "projection": lambda axes: _draw_projection(axes, model, data["projection"]),
        "silhouette": lambda axes: _draw_silhouette(axes, model, data["silhouette"]),
    }
    for name, draw in drawn.items():
        files[f"{name}.png"] = _png(draw)
    return files


# --- tables --------------------------------------------------------------------------------------


def _sizes(model: PlayerClusters) -> pl.DataFrame:
    rows = [(one.id, one.name, one.size, one.share) for one in model.clusters]
    return pl.DataFrame(rows, schema=["cluster", "name", "players", "share"], orient="row")


def _profiles(model: PlayerClusters) -> pl.DataFrame:
    rows = [
        (one.id, one.name, each.feature, each.mean, each.whole, each.effect)
        for one in model.clusters
        for each in one.differences
    ]
    names = ["cluster", "name", "feature", "mean", "mean_of_all", "effect"]
    return pl.DataFrame(rows, schema=names, orient="row")


def _projection(trained: Trained) -> pl.DataFrame:
    """Return where a sample of players lies along the two widest directions; no ids."""
    common = trained.common
    fitted = common[sampled(len(common), _FIT_ROWS, trained.model.seed)]
    axes = principal_axes(fitted, 1.0)[:2]
    rows = sampled(len(common), SHOWN_PLAYERS, trained.model.seed)
    seen = along(axes, common[rows] - fitted.mean(axis=0))
    second = seen[:, 1] if len(axes) > 1 else np.zeros(len(rows))
    return pl.DataFrame({"x": seen[:, 0], "y": second, "cluster": trained.labels[rows]})


def _silhouette(trained: Trained) -> pl.DataFrame:
    """Return the silhouettes of a sample, the best of each cluster first."""
    known = np.flatnonzero(~np.isnan(trained.silhouettes))
    rows = known[sampled(len(known), SHOWN_PLAYERS, trained.model.seed)]
    frame = pl.DataFrame(
        {"cluster": trained.labels[rows], "silhouette": trained.silhouettes[rows]},
        schema={"cluster": pl.Int64, "silhouette": pl.Float64},
    )
    return frame.sort("cluster", "silhouette", descending=[False, True])


def _search(candidates: Sequence[Candidate]) -> pl.DataFrame:
    """Return all that was tried, a row a setting."""
    rows: list[dict[str, Any]] = [
        {
            "trial": number,
            "algorithm": one.plan.algorithm,
            "scaling": one.plan.scaling,
            "reduction": one.plan.reduction,
            "setting": " ".join(f"{name}={value:g}" for name, value in each.setting.items()),
            "k": each.k,
            "quality": each.quality,
            "stability": each.stability,
            "smallest": each.smallest,
            "noise": each.noise,
            "score": each.score,
        }
        for number, one in enumerate(candidates, 1)
        for each in one.tried
    ]
    types = {"stability": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=types) if rows else pl.DataFrame()


# --- pictures ------------------------------------------------------------------------------------


def _png(draw: Callable[[Axes], None]) -> bytes:
    """Draw on a figure of its own: no display, no global state, the same bytes each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _colours(model: PlayerClusters) -> dict[int, str]:
    return {
        one.id: _GREY if one.id == NOISE else _COLOURS[(one.id - 1) % len(_COLOURS)]
        for one in model.clusters
    }


def _draw_sizes(axes: Axes, model: PlayerClusters, data: pl.DataFrame) -> None:
    colours = _colours(model)
    names = [_label(one.id, one.name) for one in model.clusters]
    bars = axes.barh(names, data["players"].to_list(), color=list(colours.values()))
    axes.bar_label(bars, [f" {n:,} ({s:.1%})" for _, _, n, s in data.iter_rows()])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("players")
    axes.set_title(f"Player clusters of {model.brand}: sizes")


def _draw_profiles(axes: Axes, data: pl.DataFrame) -> None:
    wide = data.pivot(on="feature", index=["cluster", "name"], values="effect")
    features = wide.columns[2:]
    table = wide.select(features).fill_null(0.0).to_numpy()
    image = axes.imshow(table, cmap="RdBu_r", vmin=-2, vmax=2, aspect="auto")
    axes.set_xticks(range(len(features)), features, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(
        range(len(wide)), [_label(c, n) for c, n in wide.select("cluster", "name").rows()]
    )
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:+.1f}", ha="center", va="center", fontsize=8)
    axes.figure.colorbar(image, ax=axes, label="standard deviations from the mean of all")
    axes.set_title("How the clusters differ")


def _draw_projection(axes: Axes, model: PlayerClusters, data: pl.DataFrame) -> None:
    for cluster, colour in _colours(model).items():
        some = data.filter(pl.col("cluster") == cluster)
        axes.scatter(some["x"], some["y"], s=8, alpha=0.6, color=colour, label=_label(cluster, ""))
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{len(data):,} players, along the two widest directions")


def _draw_silhouette(axes: Axes, model: PlayerClusters, data: pl.DataFrame) -> None:
    start = 0
    for cluster, colour in _colours(model).items():
        values = data.filter(pl.col("cluster") == cluster)["silhouette"].to_numpy()
        if len(values):
            axes.fill_betweenx(np.arange(start, start + len(values)), 0, values, color=colour)
            axes.text(-0.02, start + len(values) / 2, str(cluster), ha="right", fontsize=8)
            start += len(values) + max(len(data) // 60, 1)
    axes.axvline(model.metrics.silhouette, color="black", linestyle="--", linewidth=1)
    axes.set_yticks([])
    axes.set_xlabel("silhouette (1 = apart, 0 = between two groups; dashed: the mean)")
    axes.set_title("Silhouette of each player, by cluster")


def _label(cluster: int, name: str) -> str:
    short = name.partition(":")[0]
    return f"{cluster} {short}".strip()
