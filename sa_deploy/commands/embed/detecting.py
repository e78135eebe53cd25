"""``sa-deploy embed --detector``: people that are found while they are embedded, and cameras."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sa_deploy.output import note
from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    from sa_runtime.detections.options import BoxOptions
    from sa_runtime.detectors.onnx import OnnxDetector

DetectorFile = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        metavar="FILE.onnx",
        help="Detector that finds the people of videos without --detections and of cameras; none "
        "by default.",
    ),
]
Live = Annotated[
    Literal["latest", "all"],
    typer.Option(
        "--live",
        help="Take the latest frame of a camera and leave out those between, or take all.",
    ),
]


@contextmanager
def detection(given: Mapping[str, Any], boxes: BoxOptions) -> Iterator[dict[str, Any]]:
    """What :func:`sa_runtime.pipeline.embed.embed` takes of these options.

    Args:
        given: the parameters of the command, by name.
        boxes: confidence and classes of the boxes that are used.

    Raises:
        InputError: a file that is no detector.
    """
    detector = opened_detector(given, boxes)
    with ended_by_signals(given["sources"]) as stop:
        yield {"detector": detector, "live": given["live"], "stop": stop}


def opened_detector(given: Mapping[str, Any], boxes: BoxOptions) -> OnnxDetector | None:
    """The detector that is asked for.

    Args:
        given: the parameters of the command, by name.
        boxes: confidence and classes of the boxes that are used.

    Raises:
        InputError: a file that is no detector.
    """
    if given["detector"] is None:
        return None
    if given["tracks"] is not None:
        rule = "a detector follows nobody; give `detections` of a tracker"
        raise bad_value("tracks", given["tracks"], rule)
    from sa_runtime.detectors.onnx import OnnxDetector

    return OnnxDetector(
        given["detector"],
        min_confidence=boxes.min_confidence,
        classes=boxes.classes,
        threads=given["threads"],
    )


@contextmanager
def ended_by_signals(sources: Sequence[str]) -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets, where a source is live.

    What came until then is written; the command then ends with the exit code of the signal. A
    second signal breaks off.
    """
    from sa_runtime.sources.live import is_live

    stop = threading.Event()
    if not any(map(is_live, sources)):
        yield stop
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: FrameType | None) -> None:
        if heard:
            sys.exit(128 + number)
        heard.append(number)
        stop.set()

    for number in before:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        note(f"stopped by {signal.Signals(heard[0]).name}; all that came until then is written")
        raise typer.Exit(128 + heard[0])
