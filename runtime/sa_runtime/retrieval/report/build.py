"""Write the page: one HTML file with its data, pictures, style and scripts inside."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from sa_runtime.datasets.base import ReidDataset
from sa_runtime.errors import InputError, bad_value
from sa_runtime.retrieval.analysis import Analysis, analyse
from sa_runtime.retrieval.comparison import Comparison
from sa_runtime.retrieval.evaluation import STORED, RetrievalReport
from sa_runtime.retrieval.report.attention import Attention, attention_of
from sa_runtime.retrieval.report.content import Content, Evaluated, content_of
from sa_runtime.retrieval.report.thumbnails import thumbnails
from sa_runtime.system.files import refuse_inputs
from sa_runtime.system.locking import owned_path

PAGE = "report.html"
MOST_IMAGES = 4000
MOST_MAPS = 240
TOP = 10
_SCRIPTS = ("charts.js", "tables.js", "attention.js", "queries.js", "page.js")
_CHUNK = 200
"""Pictures of a part, which the page unpacks when the first of them is shown."""


def write_report(
    out: Path | str,
    reports: Sequence[RetrievalReport],
    dataset: ReidDataset,
    comparisons: Sequence[Comparison] = (),
    *,
    analyses: Sequence[Analysis] | None = None,
    most_images: int = MOST_IMAGES,
    most_maps: int = MOST_MAPS,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Write the report of one or more models on one data set.

    The file needs nothing else: no network, no server, no file beside it. It shows people, as the
    data set does, so that it is to be kept as the data set is.

    Args:
        out: folder, made where it is missing; ``report.html`` in it is replaced.
        reports: evaluations of the data set; the others stand beside the first.
        dataset: that was evaluated.
        comparisons: of the others with the first.
        analyses: of the reports; made here where they are not given.
        most_images: pictures in the page at most, of about 2 kB each; queries whose ranking is left
            out keep their figures.
        most_maps: pictures at most over which is drawn where each model looks, see
            :mod:`sa_runtime.retrieval.report.attention`; they are run through the model once more.
            0 draws none.
        on_progress: called with the number of pictures and maps just made.

    Returns:
        The file.

    Raises:
        InputError: no report, fewer pictures than one ranking takes, or a folder that is read.
    """
    folder = Path(out)
    check_report(folder, [dataset.root], most_images=most_images)
    if not reports:
        raise InputError("no evaluations to report: expected at least one")
    if analyses is None:
        analyses = [analyse(report, dataset, top=TOP) for report in reports]
    models = [
        Evaluated(report=report, analysis=analysis)
        for report, analysis in zip(reports, analyses, strict=True)
    ]
    content = content_of(dataset, models, comparisons, most_images=most_images)
    seen = content.images[: content.whole(most_maps)]
    for described, report in zip(content.data["models"], reports, strict=True):
        described["attention"] = _attention(report, seen, on_progress).to_dict()
    pictures = thumbnails(content.images, on_progress)
    target = folder / PAGE
    with owned_path(target) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.writelines(page_of(content, pictures))
    return target


def _attention(
    report: RetrievalReport, seen: Sequence[Path], on_progress: Callable[[int], None] | None
) -> Attention:
    if not seen:
        return Attention.absent("no maps were asked for")
    if not report.model or report.runtime == STORED:
        return Attention.absent("stored embeddings do not say it")
    return attention_of(report.model, seen, on_progress)


def check_report(folder: Path, roots: Sequence[Path], *, most_images: int = MOST_IMAGES) -> None:
    """Refuse a place that cannot be written to, before anything is embedded.

    Raises:
        InputError: a file of that name, a folder that is read, or too few pictures.
    """
    if most_images < 2 * TOP:
        raise bad_value("most_images", most_images, f"expected at least {2 * TOP} pictures")
    if folder.exists() and not folder.is_dir():
        raise bad_value("report", str(folder), f"a file; expected a folder, for {PAGE} in it")
    refuse_inputs(folder, roots, parameter="report")


def page_of(content: Content, pictures: Sequence[str]) -> Iterator[str]:
    """The page in parts, so that it is never in memory as a whole."""
    head, marker, foot = _part("page.html").partition("<!-- data -->\n")
    assert marker
    title = f"{content.data['dataset']}: {', '.join(m['name'] for m in content.data['models'])}"
    made = {
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": version("sa-deploy"),
        "chunk": _CHUNK,
    }
    head = head.replace("{{title}}", html.escape(title))
    yield head.replace("/* style */", _part("page.css"))
    data = json.dumps({**content.data, **made}, separators=(",", ":"), allow_nan=False)
    # Whatever a file is called, it cannot end the script.
    data = data.replace("<", "\\u003c")
    yield f'<script type="application/json" id="data">{data}</script>\n'
    for start in range(0, len(pictures), _CHUNK):
        part = ",".join(pictures[start : start + _CHUNK])
        yield f'<script type="text/plain" class="pictures">{part}</script>\n'
    scripts = "\n".join(_part(name) for name in _SCRIPTS)
    yield foot.replace("/* script */", scripts)


def _part(name: str) -> str:
    return files("sa_runtime.retrieval.report").joinpath(name).read_text(encoding="utf-8")
