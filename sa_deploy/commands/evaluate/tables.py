"""What ``sa-deploy evaluate`` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sa_deploy.output import print_table
from sa_runtime.retrieval.analysis import worst_pairs
from sa_runtime.retrieval.bootstrap import RANKS

if TYPE_CHECKING:
    from sa_runtime.retrieval.bootstrap import Interval
    from sa_runtime.retrieval.comparison import Comparison
    from sa_runtime.retrieval.evaluation import RetrievalReport
    from sa_runtime.retrieval.evaluations import Evaluations


def print_reports(reports: Sequence[RetrievalReport]) -> None:
    """A table of one evaluation by CMC convention, or of several, one a line."""
    if len(reports) == 1:
        _print_one(reports[0])
        return
    names = short_names([report.name for report in reports])
    many = len({report.dataset for report in reports}) > 1
    print_table(
        f"{reports[0].dataset if not many else 'Data sets'}{_ranked(reports[0])} (%), ± half the "
        "95 % interval over people",
        ("model", *(["data set"] if many else []), "mAP", *(f"rank-{k}" for k in RANKS), "mINP"),
        [
            (
                names[report.name],
                *([report.dataset] if many else []),
                *_with_intervals(report),
            )
            for report in reports
        ],
    )
    for report in {report.dataset: report for report in reports}.values():
        typer.echo(f"{report.dataset}: {_counts(report)}")


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """A table for each comparison: difference, interval, verdict."""
    names = short_names([name for found in comparisons for name in (found.base, found.model)])
    for found in comparisons:
        print_table(
            f"{found.dataset}: {names[found.model]} less {names[found.base]} (points); "
            f"{100 * found.level:.3g} % interval over {found.people:,} people",
            ("figure", "difference", "interval", "verdict"),
            [
                (
                    figure.replace("rank", "rank-"),
                    _points(one.value),
                    f"{_points(one.low)} to {_points(one.high)}",
                    one.verdict,
                )
                for figure, one in found.differences.items()
            ],
        )
        typer.echo(
            f"of {found.queries:,} queries {found.better:,} are found better and {found.worse:,} "
            "worse (average precision)"
        )


def print_breakdowns(found: Evaluations) -> None:
    """Tables of every evaluation: camera pairs from the worst on, heights, times, open set."""
    names = short_names([report.name for report in found.reports])
    for report, analysis in zip(found.reports, found.analyses, strict=True):
        of = f"{report.dataset}: {names[report.name]}, %"
        print_table(
            f"{of} by pair of cameras, the worst first",
            ("query and gallery camera", "queries", "mAP", "rank-1"),
            [
                (
                    f"{pair.query_camera} -> {pair.gallery_camera}",
                    pair.queries,
                    percent(pair.mAP),
                    percent(pair.rank1),
                )
                for pair in worst_pairs(analysis.pairs)
            ],
        )
        for title, groups in (("height of the crop", analysis.heights), ("time", analysis.times)):
            if groups:
                print_table(
                    f"{of} by {title}",
                    ("queries of", "queries", "mAP", "rank-1"),
                    [
                        (group.name, group.queries, percent(group.mAP), percent(group.rank1))
                        for group in groups
                    ],
                )
        print_table(
            f"{of} of right pairs (TPR) and right searches (DIR) at a rate of wrong ones",
            ("rate of wrong ones", "TPR", "DIR", "distance of TPR"),
            [
                (
                    f"{100 * at['rate']:g} %",
                    *("-" if at[key] is None else percent(at[key]) for key in ("tpr", "dir")),
                    "-" if at["threshold"] is None else f"{at['threshold']:.4f}",
                )
                for at in analysis.open_set.to_dict()["at"]
            ],
        )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """File names, or as many folders before them as tell them apart.

    >>> short_names(["a/model.onnx", "b/model.onnx"])["b/model.onnx"]
    'b/model.onnx'
    >>> short_names(["a/one.onnx", "a/two.onnx"])["a/two.onnx"]
    'two.onnx'
    """
    unique = list(dict.fromkeys(names))
    for length in range(1, 1 + max((len(Path(name).parts) for name in unique), default=0)):
        short = {name: str(Path(*Path(name).parts[-length:])) for name in unique}
        if len(set(short.values())) == len(unique):
            return short
    return {name: name for name in unique}


def _print_one(report: RetrievalReport) -> None:
    result = report.result
    intervals = report.intervals()
    rows = [
        (
            name,
            percent(result.mAP),
            *(percent(result.rank(k, name)) for k in RANKS),
            percent(result.mINP),
        )
        for name in result.cmc
    ]
    if intervals:
        ranks = [f"rank{k}" if "market1501" in result.cmc else "" for k in RANKS]
        rows.append(("± (95 %)", *(_half(intervals.get(name)) for name in ("mAP", *ranks, "mINP"))))
    print_table(
        f"{report.dataset}: {Path(report.name).name} on {report.runtime}{_ranked(report)} (%)",
        ("CMC", "mAP", *(f"rank-{k}" for k in RANKS), "mINP"),
        rows,
    )
    speed = "" if report.runtime == "stored" else f"; {report.images_per_second:,.0f} images/s"
    typer.echo(f"{_counts(report)}, {report.query.shape[1]:,} dimensions{speed}")


def _counts(report: RetrievalReport) -> str:
    result = report.result
    return (
        f"{result.queries_counted:,} queries ({result.queries_skipped:,} skipped: no match under "
        f"another camera), {result.gallery_images:,} gallery images"
    )


def _with_intervals(report: RetrievalReport) -> list[str]:
    intervals = report.intervals()
    cells = []
    for name, value in report.figures().items():
        interval = intervals.get(name)
        half = "" if interval is None else f" ±{100 * interval.half_width:.1f}"
        cells.append(f"{100 * value:.1f}{half}")
    return cells


def _half(interval: Interval | None) -> str:
    return "" if interval is None else percent(interval.half_width)


def _points(difference: float) -> str:
    """In percent, with its sign; never a negative zero."""
    return f"{round(100 * difference, 2) + 0:+.2f}"


def _ranked(report: RetrievalReport) -> str:
    expanded = "" if report.expanded is None else ", queries expanded"
    return expanded + ("" if report.reranked is None else ", re-ranked")


def percent(fraction: float) -> str:
    """A fraction in percent, with two digits."""
    return f"{100 * fraction:.2f}"
