"""Streams on this machine, served here, cut and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from sa_runtime.errors import DetectionError, InputError, VideoError
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.embed import embed
from tests.clip import Clip
from tests.tiny_detectors import end_to_end

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)


class Camera(ThreadingHTTPServer):
    """Motion JPEG over HTTP, as many cameras give it; each connection ends after some frames."""

    daemon_threads = True

    def __init__(self, frames: int, pause_s: float = 0.02) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.frames, self.pause_s = frames, pause_s
        self.sent = 0
        self.connections = 0
        self.address = f"http://127.0.0.1:{self.server_port}/video.mjpg"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(self.server.frames):
            image = np.full((64, 64, 3), 40 + number % 200, np.uint8)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            self.server.sent += 1
            time.sleep(self.server.pause_s)

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera(frames=30) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def ours(image: np.ndarray) -> list[list[float]]:
    return [[8, 16, 24, 48, 0.9]]


@pytest.mark.parametrize("mode", ["all", "latest"])
def test_a_stream_is_embedded_through_cuts_until_it_is_stopped(
    camera: Camera, tiny_model: TinyModel, tmp_path: Path, mode: Any
) -> None:
    stop = threading.Event()
    seen = [0]

    def detector(image: np.ndarray) -> list[list[float]]:
        seen[0] += 1
        if seen[0] == 45:
            stop.set()
        if mode == "latest":
            time.sleep(0.05)
        return ours(image)

    before = time.time()
    result = embed(
        camera.address,
        tiny_model.path,
        tmp_path / "live",
        detector=detector,
        live=mode,
        stop=stop,
        runtime="onnxruntime",
    )
    counts = result.counts
    assert result.rows == counts.frames == seen[0]
    assert seen[0] in (45, 46)
    assert counts.reconnects >= 1
    assert camera.connections == counts.reconnects + 1
    rows = read_embeddings(tmp_path / "live").rows
    numbers, times = rows["frame"].to_pylist(), rows["timestamp_s"].to_pylist()
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time()
    assert set(rows["source"].to_pylist()) == {camera.address}
    if mode == "all":
        assert numbers == list(range(1, len(numbers) + 1))
        assert counts.dropped_frames == 0
    else:
        assert counts.dropped_frames >= 10
        assert numbers[-1] >= len(numbers) + counts.dropped_frames


def test_a_camera_goes_on_in_the_folder_of_an_earlier_run(
    camera: Camera, tiny_model: TinyModel, tmp_path: Path
) -> None:
    """One that was stopped, and one that was killed before it came to its end."""

    def run(frames: int, error: type[Exception] | None = None) -> Any:
        stop, seen = threading.Event(), [0]

        def detector(image: np.ndarray) -> list[list[float]]:
            seen[0] += 1
            if seen[0] == frames:
                stop.set()
                if error is not None:
                    raise error
            return ours(image)

        return embed(
            camera.address,
            tiny_model.path,
            tmp_path / "live",
            detector=detector,
            live="all",
            stop=stop,
            resume=True,
            shard_rows=4,
            runtime="onnxruntime",
        )

    first = run(6)
    with pytest.raises(KeyError):
        run(11, KeyError)
    between = read_embeddings(tmp_path / "live", unfinished=True)
    assert first.rows < len(between.rows) < first.rows + 11
    last = run(5)
    assert last.resumed_rows == len(between.rows)
    assert last.sources == 3
    rows = read_embeddings(tmp_path / "live").rows
    assert len(rows) == last.rows >= last.resumed_rows + 5
    times = rows["timestamp_s"].to_pylist()
    assert times == sorted(times)


def test_what_is_live_needs_a_detector_and_an_answer(
    tiny_model: TinyModel, tmp_path: Path, clip: Clip
) -> None:
    with pytest.raises(InputError, match="a live source without a detector; pass `detector=FILE`"):
        embed("rtsp://user:secret@127.0.0.1:9/x", tiny_model.path, tmp_path / "o")
    with pytest.raises(VideoError, match=r"http://127\.0\.0\.1:9/x: cannot be opened as a stream"):
        embed("http://u:p@127.0.0.1:9/x", tiny_model.path, tmp_path / "o", detector=ours)
    with pytest.raises(DetectionError, match="the detector returned"):
        embed(
            clip.video,
            tiny_model.path,
            tmp_path / "o",
            detector=lambda image: "people",
            runtime="onnxruntime",
        )


def test_a_detector_finds_the_people_of_a_video(
    tiny_model: TinyModel, tmp_path: Path, clip: Clip
) -> None:
    boxes = "".join(f"{number},-1,8,16,16,32,0.9\n" for number in range(1, 41))
    (tmp_path / "b.txt").write_text(boxes)
    out = tmp_path / "o.parquet"
    options: dict[str, Any] = {"runtime": "onnxruntime"}
    embed(clip.video, tiny_model.path, out, detections=tmp_path / "b.txt", **options)
    expected = read_embeddings(out)
    result = embed(clip.video, tiny_model.path, out, detector=ours, **options)
    stored = read_embeddings(out)
    assert stored.rows.equals(expected.rows)
    np.testing.assert_array_equal(stored.vectors, expected.vectors)
    assert result.counts.frames == 40


@contextlib.contextmanager
def running(
    arguments: list[str], stderr: Path, stdin: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    with stderr.open("w") as errors, tempfile.TemporaryFile("w+") as given:
        given.write(stdin or "")
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "sa_deploy", *arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_sigterm_ends_the_command_with_everything_written(
    camera: Camera, tiny_model: TinyModel, tmp_path: Path
) -> None:
    detector = end_to_end(tmp_path / "d.onnx")
    out = tmp_path / "live.parquet"
    words = ["embed", str(tiny_model.path), camera.address, "--detector", str(detector)]
    words += ["--out", str(out), "--live", "all", "--runtime", "onnxruntime", "--json"]
    with running(words, tmp_path / "stderr") as process:
        deadline = time.monotonic() + 60
        while camera.sent < 50 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=60)
    errors = (tmp_path / "stderr").read_text()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped by SIGTERM; all that came until then is written" in errors
    summary = json.loads(stdout)
    stored = read_embeddings(out)
    assert len(stored.vectors) == summary["rows"] == 2 * summary["frames"] > 30
    assert summary["reconnects"] >= 1


SERVER = Path(__file__).parents[2] / "rtsp_server.py"
PEOPLE = os.environ.get("SA_DEPLOY_PEOPLE_VIDEO", "")


def python_with_rtsp() -> str | None:
    """A Python that has GStreamer's RTSP server, which comes with the system's."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    for python in ("/usr/bin/python3", sys.executable):
        if (
            shutil.which(python)
            and not subprocess.run([python, "-c", code], capture_output=True).returncode
        ):
            return python
    return None


@contextlib.contextmanager
def rtsp(python: str, video: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The video of ``SA_DEPLOY_PEOPLE_VIDEO``, or the drawn one, until the block ends."""
    codec = "mpeg4" if video.name == "clip.mp4" else "h264"
    words = [python, str(SERVER), str(video), codec, str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.soak
def test_rtsp_through_a_cut_a_sigterm_and_a_run_that_goes_on(
    tiny_model: TinyModel, tmp_path: Path, clip: Clip
) -> None:
    """The command, from a list on standard input, twice into one folder."""
    python = python_with_rtsp()
    if python is None:
        pytest.skip(
            "no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 "
            "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
        )
    video, port = Path(PEOPLE) if PEOPLE else clip.video, 18561
    address = f"rtsp://127.0.0.1:{port}/people"
    out, rows, cuts = tmp_path / "live", 0, (1, 0)
    words = ["embed", str(tiny_model.path), "-", "--detector", str(end_to_end(tmp_path / "d.onnx"))]
    words += ["--out", str(out), "--resume", "--runtime", "onnxruntime", "--json"]
    for number, cut in enumerate(cuts):
        with (
            rtsp(python, video, port) as server,
            running(words, tmp_path / "stderr", stdin=f"{address}\n") as process,
            contextlib.ExitStack() as stack,
        ):
            time.sleep(15)
            if cut:
                server.kill()
                server.wait()
                time.sleep(2)
                stack.enter_context(rtsp(python, video, port))
                time.sleep(15)
            process.send_signal(signal.SIGTERM)
            stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM, (tmp_path / "stderr").read_text()
        summary = json.loads(stdout)
        assert summary["sources"] == number + 1
        assert summary["resumed_rows"] == rows
        assert summary["rows"] == 2 * summary["frames"] > rows + 20, summary
        # A drawn video is short: its end is a cut too.
        assert summary["reconnects"] >= 1
        rows = summary["rows"]
        stored = read_embeddings(out)
        assert len(stored.vectors) == rows
        times = stored.rows["timestamp_s"].to_pylist()
        assert times == sorted(times)
        print({name: summary[name] for name in ("rows", "frames", "dropped_frames", "reconnects")})


@pytest.mark.soak
@pytest.mark.skipif(
    shutil.which("ffmpeg") is None and importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="ffmpeg is not installed: pip install imageio-ffmpeg",
)
def test_ffmpeg_serves_a_stream_that_is_cut(
    tiny_model: TinyModel, tmp_path: Path, clip: Clip
) -> None:
    """The video of ``SA_DEPLOY_PEOPLE_VIDEO``, or a drawn one, as MPEG-TS over HTTP."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        import imageio_ffmpeg

        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    video = Path(PEOPLE) if PEOPLE else clip.video
    address = "http://127.0.0.1:18554/live.ts"
    serve = [ffmpeg, "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(video)]
    serve += ["-c:v", "mpeg2video", "-q:v", "4", "-f", "mpegts", "-listen", "1", address]
    out = tmp_path / "live"
    words = ["embed", str(tiny_model.path), address, "--detector"]
    words += [str(end_to_end(tmp_path / "d.onnx")), "--out", str(out), "--runtime", "onnxruntime"]
    first = subprocess.Popen(serve)
    time.sleep(1)
    try:
        with running([*words, "--json"], tmp_path / "stderr") as process:
            time.sleep(12)
            first.kill()  # the cut
            first.wait()
            time.sleep(2)
            second = subprocess.Popen(serve)
            try:
                time.sleep(12)
                process.send_signal(signal.SIGTERM)
                stdout, _ = process.communicate(timeout=60)
            finally:
                second.kill()
                second.wait()
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    assert process.returncode == 128 + signal.SIGTERM, (tmp_path / "stderr").read_text()
    summary = json.loads(stdout)
    assert summary["reconnects"] == 1
    assert len(read_embeddings(out).vectors) == summary["rows"] == 2 * summary["frames"] > 100
    print({name: summary[name] for name in ("rows", "frames", "dropped_frames", "reconnects")})
