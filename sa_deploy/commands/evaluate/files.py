"""What ``sa-deploy evaluate`` leaves beside its figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sa_deploy.commands.evaluate.tables import percent, short_names
from sa_deploy.output import note, print_table, progress
from sa_runtime.errors import InputError
from sa_runtime.retrieval.history import append_history, check_history, entry_of, read_history
from sa_runtime.retrieval.per_query import check_per_query, write_per_query
from sa_runtime.retrieval.picture import check_picture, ranking_picture
from sa_runtime.retrieval.report.build import check_report, write_report
from sa_runtime.system.files import refuse_inputs

if TYPE_CHECKING:
    from sa_runtime.retrieval.evaluations import Evaluations

_LINES = 20
_UNSAFE = re.compile(r"[^\w.,=@+-]")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that were asked for; ``None`` where one was not."""

    picture: Path | None
    per_query: Path | None
    report: Path | None
    most_images: int
    history: Path | None

    def check(self, roots: Sequence[Path], models: Sequence[str], *, alone: bool) -> None:
        """Refuse what cannot be written, before anything is embedded.

        Args:
            roots: folders of the data sets.
            models: what is evaluated.
            alone: whether there is one model and one data set.

        Raises:
            InputError: a name that is refused, or a picture of several.
        """
        for name in ("picture", "per_query", "report", "history"):
            target: Path | None = getattr(self, name)
            if target is not None:
                refuse_inputs(target, models, parameter=name)
        if self.picture is not None:
            if not alone:
                raise InputError("--picture shows one model on one data set; leave it out here")
            check_picture(self.picture, roots[0])
        if self.per_query is not None:
            check_per_query(self.per_query, roots)
        if self.report is not None:
            check_report(self.report, roots, most_images=self.most_images)
        if self.history is not None:
            check_history(self.history)

    def write(self, found: Evaluations, *, seed: int) -> None:
        """Write them and say so."""
        if self.picture is not None:
            report = found.reports[0]
            ranking_picture(
                found.datasets[0],
                report.query,
                report.gallery,
                self.picture,
                rerank=report.reranked,
                seed=seed,
            )
            note(f"picture: {self.picture}")
        if self.per_query is not None:
            write_per_query(self.per_query, list(zip(found.reports, found.datasets, strict=True)))
            note(f"per query: {self.per_query}")
        if self.report is not None:
            self._write_reports(self.report, found)
        if self.history is not None:
            append_history(self.history, [entry_of(report) for report in found.reports])
            note(f"history: {self.history}")

    def print_history(self, found: Evaluations) -> None:
        """A table over time of what compares with these evaluations."""
        if self.history is None:
            return
        entries = read_history(self.history)
        for report in {report.dataset: report for report in found.reports}.values():
            now = entry_of(report)
            alike = [entry for entry in entries if entry.alike(now)][-_LINES:]
            names = short_names([entry.model for entry in alike])
            print_table(
                f"{report.dataset} over time (%), the newest last",
                ("time (UTC)", "model", "mAP", "rank-1", "mINP"),
                [
                    (
                        entry.time[:16].replace("T", " "),
                        names[entry.model],
                        percent(entry.mAP),
                        percent(entry.rank1),
                        percent(entry.mINP),
                    )
                    for entry in alike
                ],
            )

    def to_dict(self) -> dict[str, str | None]:
        """Their names, for JSON."""
        files = {
            "picture": self.picture,
            "per_query": self.per_query,
            "report": self.report,
            "history": self.history,
        }
        return {key: None if path is None else str(path) for key, path in files.items()}

    def _write_reports(self, folder: Path, found: Evaluations) -> None:
        """A page for each data set; of several each in a folder of its own."""
        names = list(dict.fromkeys(report.dataset for report in found.reports))
        for name in names:
            places = [i for i, report in enumerate(found.reports) if report.dataset == name]
            with progress("pictures", None, unit="picture") as advance:
                page = write_report(
                    folder if len(names) == 1 else folder / _UNSAFE.sub("_", name),
                    [found.reports[i] for i in places],
                    found.datasets[places[0]],
                    [one for one in found.comparisons if one.dataset == name],
                    analyses=[found.analyses[i] for i in places],
                    most_images=self.most_images,
                    on_progress=advance,
                )
            note(f"report: {page}")
