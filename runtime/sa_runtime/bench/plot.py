"""Throughput against latency as a picture."""

from __future__ import annotations

from pathlib import Path

from sa_runtime.bench.result import BenchResult
from sa_runtime.errors import bad_value
from sa_runtime.system.extras import require
from sa_runtime.system.files import atomic_path

_MARKERS = "osD^vPX*"


def plot_result(result: BenchResult, path: Path) -> None:
    """Write a PNG, SVG or PDF: images a second against p99, one line per contender.

    Args:
        result: what was measured.
        path: the picture; its suffix says the format.

    Raises:
        InputError: another suffix.
        MissingPackageError: matplotlib is not installed.
    """
    check_plot_path(path)
    require("matplotlib", extra="train", purpose="drawing the plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, contender in enumerate(result.contenders):
        series = sorted(contender.series, key=lambda s: s.batch)
        x = [s.latency_ms["p99"] for s in series]
        y = [s.images_per_s for s in series]
        (line,) = axes.plot(
            x, y, marker=_MARKERS[index % len(_MARKERS)], label=contender.name, linewidth=1.8
        )
        for one in series:
            axes.annotate(
                str(one.batch),
                (one.latency_ms["p99"], one.images_per_s),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=8,
                color=line.get_color(),
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(0.08, 0.12)
    axes.set_xlabel("p99 latency of a batch, ms (the number at a point is the batch size)")
    axes.set_ylabel("images a second")
    environment = result.environment
    models = ", ".join(dict.fromkeys(contender.model for contender in result.contenders))
    axes.set_title(
        f"{models} on {environment['processor']}, {environment['cores']} cores", fontsize=10
    )
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8, loc="best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def check_plot_path(path: Path) -> None:
    """Raise InputError unless a picture can be written under this name."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise bad_value("picture", str(path), "expected a name that ends in .png, .svg or .pdf")
