"""Several models on several data sets, as ``sa-deploy evaluate A B`` runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError
from sa_runtime.retrieval.analysis import Analysis, analyse
from sa_runtime.retrieval.comparison import Comparison, compare_with_first
from sa_runtime.retrieval.evaluation import RetrievalReport, evaluate
from sa_runtime.retrieval.expansion import Expansion
from sa_runtime.retrieval.metrics import Convention
from sa_runtime.retrieval.rerank import Reranking
from sa_runtime.retrieval.stored import is_stored

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Told what embeds so many images, gives what is called with the number of those just embedded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluations:
    """What each model gave on each data set.

    Attributes:
        reports: data set by data set of the first model, then of the next.
        datasets: of each report.
        comparisons: of every further model with the first one, for each data set.
        analyses: of each report, where :func:`analyse_all` made them.
    """

    reports: tuple[RetrievalReport, ...]
    datasets: tuple[ReidDataset, ...]
    comparisons: tuple[Comparison, ...]
    analyses: tuple[Analysis, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the figures of one report, or ``evaluations`` and ``comparisons``."""
        found = [report.to_dict() for report in self.reports]
        for figures, analysis in zip(found, self.analyses, strict=False):
            figures["breakdown"] = analysis.to_dict()
        if len(found) == 1:
            return found[0]
        return {
            "evaluations": found,
            "comparisons": [found.to_dict() for found in self.comparisons],
        }


def evaluate_models(
    models: Sequence[Path | str],
    datasets: Sequence[ReidDataset],
    *,
    runtime: str = "auto",
    batch_size: int = 32,
    rerank: Reranking | None = None,
    expand: Expansion | None = None,
    conventions: Sequence[Convention] = ("market1501",),
    seed: int = 0,
    watch: Watch = lambda what, count: nullcontext(lambda done: None),
    **options: Any,
) -> Evaluations:
    """Evaluate every model on every data set; each model is opened once.

    Args:
        models: artefacts or stored embeddings, as :func:`evaluate` takes them.
        datasets: of different names.
        runtime: for artefacts.
        batch_size: for artefacts.
        rerank: re-rank first.
        expand: expand the queries first.
        conventions: CMC curves wanted.
        seed: of the draws of ``cuhk03`` and of people.
        watch: shows progress.
        options: passed to the runners.

    Raises:
        InputError: a model given twice, or as :func:`sa_runtime.retrieval.evaluation.evaluate`.
    """
    names = [str(model) for model in models]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: given twice; leave one out")
    reports = []
    for name in names:
        with ExitStack() as stack:
            opened: Embedder | str = name
            on = "stored vectors"
            if not is_stored(Path(name)):
                opened = stack.enter_context(
                    Embedder(name, runtime, batch_size=batch_size, **options)
                )
                on = opened.runner.name
            for images in datasets:
                count = len(images.query) + len(images.gallery)
                with watch(f"embed on {on}", count) as advance:
                    report = evaluate(
                        opened,
                        images,
                        rerank=rerank,
                        expand=expand,
                        conventions=conventions,
                        seed=seed,
                        on_progress=advance,
                    )
                reports.append(replace(report, model=name))
    return Evaluations(
        reports=tuple(reports),
        datasets=tuple(datasets) * len(names),
        comparisons=tuple(compare_with_first(reports, seed=seed)),
    )


def analyse_all(
    found: Evaluations, *, watch: Watch = lambda what, count: nullcontext(lambda done: None)
) -> Evaluations:
    """The same evaluations, each with its analysis."""
    analyses = []
    for report, dataset in zip(found.reports, found.datasets, strict=True):
        with watch("rank", len(dataset.query)) as advance:
            analyses.append(analyse(report, dataset, on_progress=advance))
    return replace(found, analyses=tuple(analyses))
