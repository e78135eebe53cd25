"""What a run leaves to watch it by: lines, a table of steps, TensorBoard events, curves."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa_runtime.errors import TrainingError
from sa_runtime.system.extras import require
from sa_runtime.system.files import atomic_path
from sa_training.checkpoints import CHECKPOINT

if TYPE_CHECKING:
    from sa_training.options import Progress

METRICS = "metrics.jsonl"
STEPS = "steps.csv"
CURVES = "curves.png"
_NAMED_FILES = 8


class Metrics:
    """Writes them; with no folder nothing is written.

    Args:
        out: folder of the run, ``None`` in processes that do not write.
        names: of the losses.
        events: a ``SummaryWriter`` of TensorBoard.
    """

    def __init__(self, out: Path | None, names: Sequence[str], events: Any = None) -> None:
        self._out = out
        self._names = tuple(names)
        self._events = events

    @classmethod
    @contextmanager
    def opened(
        cls, out: Path | None, *, names: Sequence[str], step: int, tensorboard: bool
    ) -> Iterator[Metrics]:
        """Open the files of a run which stands at ``step``; what lies beyond it is taken back.

        Raises:
            MissingPackageError: TensorBoard is wanted and not installed.
        """
        if out is None:
            yield cls(None, names)
            return
        out.mkdir(parents=True, exist_ok=True)
        _take_back_lines(out / METRICS, step)
        _take_back_rows(out / STEPS, step)
        events = None
        if tensorboard:
            require("tensorboard", extra="tensorboard", purpose="logging for TensorBoard")
            from torch.utils.tensorboard import SummaryWriter

            events = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
        try:
            yield cls(out, names, events)
        finally:
            if events is not None:
                events.close()

    def step(self, progress: Progress) -> None:
        """A row of ``steps.csv``."""
        if self._out is None:
            return
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": progress.loss,
            **{f"loss_{name}": progress.losses[name] for name in self._names},
            "accuracy": progress.accuracy,
            "lr": progress.lr,
            "images_per_s": progress.images_per_s,
        }
        path = self._out / STEPS
        new = not path.exists()
        with path.open("a", newline="") as lines:
            table = csv.DictWriter(lines, list(row))
            if new:
                table.writeheader()
            table.writerow({key: _short(value) for key, value in row.items()})
        self._scalars("step", row, progress.step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl``."""
        if self._out is None:
            return
        with (self._out / METRICS).open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        flat = {key: value for key, value in record.items() if isinstance(value, float)}
        self._scalars("epoch", flat, record["step"])

    def _scalars(self, group: str, values: Mapping[str, Any], step: int) -> None:
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{group}/{name}", value, step)


def read_epochs(out: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, one an epoch; none where there is no such file."""
    path = out / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def draw_curves(out: Path) -> Path:
    """Draw ``curves.png``: loss of each head, accuracy, learning rate, what was evaluated.

    Args:
        out: folder of a run with at least one row of ``steps.csv``.

    Returns:
        The picture's path.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    require("matplotlib", extra="train", purpose="curves.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with (out / STEPS).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    steps = [int(row["step"]) for row in rows]
    epochs = read_epochs(out)
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (losses, total), (accuracy, evaluated) = figure.subplots(2, 2)
    for name in (key for key in rows[0] if key.startswith("loss_")):
        label = name.removeprefix("loss_")
        style = {"part": ":", "stag": "--"}.get(label[:4], "-")
        losses.plot(steps, [float(row[name]) for row in rows], style, label=label, linewidth=1)
    losses.legend(fontsize="small", ncols=2)
    losses.set_title("Loss of each head")
    total.plot(steps, [float(row["loss"]) for row in rows], color="0.7", label="step")
    total.plot([e["step"] for e in epochs], [e["loss"] for e in epochs], "-", label="epoch's mean")
    total.legend(fontsize="small")
    total.set_title("Sum of the losses")
    accuracy.plot(steps, [100 * float(row["accuracy"]) for row in rows], color="tab:blue")
    accuracy.set_ylabel("training accuracy %")
    rate = accuracy.twinx()
    rate.plot(steps, [float(row["lr"]) for row in rows], color="tab:orange")
    rate.set_ylabel("learning rate", color="tab:orange")
    accuracy.set_title("Accuracy of the global classifier, learning rate")
    known = {"epoch", "step", "loss", "losses", "accuracy", "lr", "images_per_s"}
    for name in sorted({key for e in epochs for key in e} - known - {"waiting_for_data"}):
        found = [(e["step"], 100 * e[name]) for e in epochs if name in e]
        evaluated.plot(*zip(*found, strict=True), "o-", label=name)
    if evaluated.lines:
        evaluated.legend(fontsize="small")
        evaluated.set_title("Evaluation, %")
    else:
        evaluated.plot([e["step"] for e in epochs], [e["images_per_s"] for e in epochs], "o-")
        evaluated.set_title("Images a second")
    for axes in (losses, total, accuracy, evaluated):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    with atomic_path(out / CURVES) as temporary:
        figure.savefig(temporary, dpi=110)
    return out / CURVES


def not_finite(
    losses: Mapping[str, float], names: Sequence[str], out: Path, *, where: str, rank: int
) -> TrainingError:
    """The error of a step whose loss is no number; its images are listed in the run's folder.

    Args:
        losses: of the step, by name.
        names: of the images it saw.
        out: folder of the run.
        where: which step it was.
        rank: of the process, which has a list of its own.
    """
    listing = out / f"not_finite_{rank}.txt"
    out.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(names) + "\n")
    wrong = [f"{name} {loss}" for name, loss in losses.items() if not math.isfinite(loss)]
    more = f" and {len(names) - _NAMED_FILES} more" if len(names) > _NAMED_FILES else ""
    kept = out / CHECKPOINT
    last = f"; the last checkpoint, {kept}, is good" if kept.is_file() else ""
    return TrainingError(
        f"{where}: loss is not finite ({', '.join(wrong[:_NAMED_FILES])}) on "
        f"{', '.join(names[:_NAMED_FILES])}{more} (all in {listing}); lower `lr`, or pass "
        f"`precision='fp32'`{last}"
    )


def _short(value: float) -> float | str:
    return value if isinstance(value, int) else f"{value:.6g}"


def _take_back_lines(path: Path, step: int) -> None:
    if path.is_file():
        kept = [line for line in path.read_text().splitlines() if _line_step(line) <= step]
        _rewrite(path, kept)


def _line_step(line: str) -> float:
    """Step of a line; a line that a kill cut short lies beyond every step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _take_back_rows(path: Path, step: int) -> None:
    if path.is_file():
        header, *rows = path.read_text().splitlines() or [""]
        columns = header.count(",")
        whole = [row for row in rows if row.count(",") == columns]
        kept = [row for row in whole if int(row.partition(",")[0]) <= step]
        _rewrite(path, [header, *kept] if kept else [])


def _rewrite(path: Path, lines: Sequence[str]) -> None:
    if not lines:
        path.unlink()
        return
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
