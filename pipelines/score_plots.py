"""Plots of a trained score's tables, as PNG, made without a screen."""

from __future__ import annotations

from io import BytesIO

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE, _DPI = (6.0, 4.5), 120


def plot_calibration(kind: str, table: pl.DataFrame) -> bytes:
    """Return what was said against what came true, by tenths; on the line both are the same."""
    figure, axes = _empty()
    for (name,), part in table.group_by("model", maintain_order=True):
        axes.plot(part["said"], part["true"], "o-", ms=4, label=str(name))
    low = min(float(table["said"].min() or 0), float(table["true"].min() or 0))  # type: ignore[arg-type]  # numbers
    high = max(float(table["said"].max() or 1), float(table["true"].max() or 1))  # type: ignore[arg-type]  # numbers
    axes.plot([low, high], [low, high], color="grey", lw=1, ls="--")
    what = "left" if kind == "churn" else "brought"
    axes.set(xlabel="said, mean of a tenth", ylabel=f"{what} in fact", title="Calibration")
    axes.legend()
    return _png(figure)


def plot_gain(table: pl.DataFrame) -> bytes:
    """Return the share of all that the players with the highest scores hold."""
    figure, axes = _empty()
    for (name,), part in table.group_by("model", maintain_order=True):
        axes.plot([0, *part["share"]], [0, *part["gain"]], label=str(name))
    axes.plot([0, 1], [0, 1], color="grey", lw=1, ls="--")
    axes.set(xlabel="players, highest scores first", ylabel="share of all", title="Gain")
    axes.legend()
    return _png(figure)


def plot_ranks(table: pl.DataFrame) -> bytes:
    """Return how many of each rank left in fact."""
    figure, axes = _empty()
    shown = [value or 0.0 for value in table["realised"]]
    labels = [
        f"{rank}\n{players:,} players"
        for rank, players in zip(table["rank"], table["players"], strict=True)
    ]
    axes.bar(labels, shown)
    axes.set(ylabel="left in fact", ylim=(0, 1), title="Ranks")
    return _png(figure)


def _empty() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    # without the version and the date the same table gives the same bytes
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
