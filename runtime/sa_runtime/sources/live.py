"""Cameras and streams: what they show is embedded as it comes, until the run is told to stop.

A stream that ends or breaks is opened again, after pauses that grow from half a second to half a
minute. Rows carry the wall clock, seconds since 1970, of the moment at which their frame was read.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np

from sa_runtime.arrays import Image
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detectors.base import Detector
from sa_runtime.errors import InputError, VideoError
from sa_runtime.items import Counts, Item
from sa_runtime.sources.base import START, OnSkip, Place, SourceOptions, ignore
from sa_runtime.sources.detected import name_of, people_in, refuse_tracks

_log = logging.getLogger(__name__)

LiveMode = Literal["latest", "all"]
"""``latest`` leaves out what comes while an older frame is worked on; ``all`` lets it wait."""
DELAY_MS = 500.0
"""So long the crops of a live source wait for a full batch, unless another delay is given."""
_ADDRESS = re.compile(r"(?:rtsps?|rtmps?|https?|srt|udp|tcp)://.+|/dev/video\d+|\d+", re.I)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_TIMEOUT_MS = 10_000


def is_live(location: str) -> bool:
    """Whether a location is an address or the number of a camera.

    >>> [is_live(one) for one in ("rtsp://c/1", "0", "/dev/video2", "a.mp4", "s3://b/a.mp4")]
    [True, True, True, False, False]
    """
    return _ADDRESS.fullmatch(location) is not None


def live_delay_ms(sources: Sequence[object], given: float | None) -> float | None:
    """How long crops wait for a full batch: as given, else not for long where a source is live.

    Raises:
        InputError: two are live, or one that is not the last.
    """
    live = [isinstance(one, LiveSource) for one in sources]
    if any(live[:-1]):
        raise InputError(
            "a live source does not end, and those behind it would wait for ever; name it last, "
            "and embed other cameras in processes of their own"
        )
    return DELAY_MS if given is None and any(live) else given


class Shot(NamedTuple):
    """A frame, its number since the run began, and when it was read."""

    number: int
    time_s: float
    image: Image


class Stream:
    """A connection that is made again where it breaks.

    Args:
        address: of the stream, or the number of a camera.
        stop: ends it.

    Attributes:
        reconnects: how often it was made again.

    Raises:
        VideoError: it cannot be opened at first.
    """

    def __init__(self, address: str, stop: threading.Event) -> None:
        self._address = address
        self._stop = stop
        self.reconnects = 0
        self._number = 0
        self._capture = _opened(address)
        if self._capture is None:
            raise VideoError(
                f"{_hidden(address)}: cannot be opened as a stream within {_TIMEOUT_MS // 1000} s; "
                "check it with `ffprobe ADDRESS`"
            )

    def read(self) -> Shot | None:
        """The next frame; ``None`` once the stream is told to stop."""
        pause_s = _FIRST_PAUSE_S
        while not self._stop.is_set():
            if self._capture is not None:
                found, image = self._capture.read()
                if found:
                    self._number += 1
                    return Shot(self._number, time.time(), np.asarray(image, np.uint8))
                self._capture.release()
                _log.warning("%s: broke off; opening it again", _hidden(self._address))
            if self._stop.wait(pause_s):
                return None
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._capture = _opened(self._address)
            self.reconnects += self._capture is not None
        return None

    def close(self) -> None:
        """End the connection."""
        if self._capture is not None:
            self._capture.release()


class Newest:
    """The newest frame of a stream, which a thread reads; older ones are dropped.

    Args:
        stream: the stream.
        stop: ends it.

    Attributes:
        dropped: number of frames that were.
    """

    def __init__(self, stream: Stream, stop: threading.Event) -> None:
        self.dropped = 0
        self._stream = stream
        self._stop = stop
        self._shot: Shot | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="sa-live", daemon=True)
        self._thread.start()

    def read(self) -> Shot | None:
        """The newest frame that was not given yet; ``None`` at the end."""
        with self._changed:
            while self._shot is None and not self._ended and not self._stop.is_set():
                self._changed.wait(0.1)
            shot, self._shot = self._shot, None
            return None if self._stop.is_set() else shot

    def _run(self) -> None:
        while (shot := self._stream.read()) is not None:
            with self._changed:
                self.dropped += self._shot is not None
                self._shot = shot
                self._changed.notify_all()
        self._ended = True

    def close(self) -> None:
        """Wait for the thread, which may be reading for as long as a stream may be silent."""
        self._thread.join(_TIMEOUT_MS / 1000 + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveSource:
    """A camera or stream, and what finds its people.

    Attributes:
        address: of the stream, or the number of a camera.
        stream: the open connection.
        detector: finds the people of a frame.
        mode: see :data:`LiveMode`.
        stop: ends it.
        since: when it was opened, in UTC.
        camera: goes into every row.
        boxes: which boxes are used, and how far they are moved out.
    """

    needs_detections: ClassVar[bool] = False

    address: str
    stream: Stream
    detector: Detector
    mode: LiveMode
    stop: threading.Event
    since: str
    camera: str | None = None
    boxes: BoxOptions = dataclasses.field(default_factory=BoxOptions)

    @classmethod
    def takes(cls, location: str) -> bool:
        """Addresses, devices, and numbers of cameras."""
        return is_live(location)

    @classmethod
    def open(cls, location: str, options: SourceOptions) -> Self:
        """A stream that answers.

        Raises:
            InputError: there is no detector.
            VideoError: it does not answer.
        """
        if options.detector is None:
            raise InputError(
                f"{_hidden(location)}: a live source without a detector; pass `detector=FILE`, a "
                "detector in ONNX"
            )
        if options.boxes.every is not None or options.boxes.fps is not None:
            raise InputError(
                f"{_hidden(location)}: `every` and `fps` are for files; of a live source `live` "
                "says which frames are used"
            )
        refuse_tracks(_hidden(location), options.boxes)
        return cls(
            address=location,
            stream=Stream(location, options.stop),
            detector=options.detector,
            mode=options.live,
            stop=options.stop,
            since=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            camera=options.camera,
            boxes=options.boxes,
        )

    def __len__(self) -> int:
        """Nobody knows how many people will come."""
        return 0

    def identity(self) -> dict[str, Any]:
        """Address and beginning: what it shows comes once."""
        return {
            "address": _hidden(self.address),
            "since": self.since,
            "detector": name_of(self.detector),
            **self.boxes.identity(),
        }

    def items(
        self, counts: Counts, *, after: Place = START, on_skip: OnSkip = ignore
    ) -> Iterator[Item]:
        """The frames that show people, until the run is told to stop."""
        newest = Newest(self.stream, self.stop) if self.mode == "latest" else None
        try:
            yield from people_in(
                self._shots(newest, counts),
                self.detector,
                self.boxes,
                counts,
                source=_hidden(self.address),
                camera=self.camera,
            )
        finally:
            if newest is not None:
                newest.close()
            self.stream.close()

    def _shots(self, newest: Newest | None, counts: Counts) -> Iterator[Shot]:
        """What the stream shows, and how much of it was lost on the way."""
        dropped = reconnects = 0
        while (shot := (newest or self.stream).read()) is not None:
            now_dropped = 0 if newest is None else newest.dropped
            counts.dropped_frames += now_dropped - dropped
            counts.reconnects += self.stream.reconnects - reconnects
            dropped, reconnects = now_dropped, self.stream.reconnects
            yield shot

    def digest(self, item: Item) -> str:
        """Nothing: no frame comes again."""
        return ""


def _opened(address: str) -> cv2.VideoCapture | None:
    if address.isdigit():
        capture = cv2.VideoCapture(int(address))
    else:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        api = cv2.CAP_ANY if address.startswith("/dev/") else cv2.CAP_FFMPEG
        capture = cv2.VideoCapture(address, api, [] if api == cv2.CAP_ANY else limits)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def _hidden(address: str) -> str:
    """An address without the password that may stand in it.

    >>> _hidden("rtsp://admin:secret@10.0.0.5/1")
    'rtsp://10.0.0.5/1'
    """
    return re.sub(r"(?<=://)[^/@]*@", "", address)
