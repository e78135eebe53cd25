"""Measures what reading a large file of boxes takes, for each format: seconds and peak memory.

The same boxes are written in every format and each file is read in a process of its own, put in
order, gone through once and hashed; the hashes must agree, but for Ultralytics', which writes six
digits. A frame has a thousand boxes, so that Ultralytics' folder has a file for every thousand::

    python benchmarks/large_boxes.py --boxes 50000000 --folder /data/scratch
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sa_runtime.detections.options import BoxOptions
from sa_runtime.detections.table import read_detections

IN_FRAME, STEP = 1000, 1_000_000
WIDTH, HEIGHT = 1920, 1080
NAMES = ("frame", "id", "left", "top", "width", "height", "conf")

Table = NDArray[np.float64]
"""(N, 7) of :data:`NAMES`; a sixteenth of a pixel apart, so that every format holds them."""


def blocks(count: int, *, by_track: bool = False) -> Iterator[Table]:
    for start in range(0, count, STEP):
        number = np.arange(start, min(start + STEP, count))
        frames = -(-count // IN_FRAME)
        frame, track = number // IN_FRAME, number % IN_FRAME
        if by_track:
            frame, track = number % frames, number // frames
        draw = frame * 7919 + track * 104_729
        box = [draw % 27_000 / 16, draw % 13_000 / 16, 32 + draw % 900 / 16, 64 + draw % 1900 / 16]
        confidence = 0.25 + draw % 768 / 1024
        yield np.stack([frame + 1, track, *box, confidence], axis=1)


def arrow(block: Table) -> pa.Table:
    whole = [pa.array(block[:, index].astype(np.int64)) for index in (0, 1)]
    return pa.table([*whole, *(pa.array(block[:, i]) for i in range(2, 7))], names=list(NAMES))


def write_csv(path: Path, count: int, *, header: bool = True, by_track: bool = False) -> None:
    options = pyarrow.csv.WriteOptions(include_header=header)
    schema = arrow(next(blocks(1))).schema
    with pyarrow.csv.CSVWriter(path, schema, write_options=options) as writer:
        for block in blocks(count, by_track=by_track):
            writer.write_table(arrow(block))


def write_mot(path: Path, count: int) -> None:
    write_csv(path, count, header=False)


def write_csv_by_track(path: Path, count: int) -> None:
    write_csv(path, count, by_track=True)


def write_parquet(path: Path, count: int) -> None:
    with pq.ParquetWriter(path, arrow(next(blocks(1))).schema) as writer:
        for block in blocks(count):
            writer.write_table(arrow(block))


def write_coco(path: Path, count: int) -> None:
    """Results, whose ``image_id`` is the frame."""
    with path.open("w") as file:
        lead = "["
        for block in blocks(count):
            for frame, track, *box, confidence in block.tolist():
                file.write(
                    f'{lead}{{"image_id": {int(frame)}, "category_id": 1, "bbox": {box}, '
                    f'"score": {confidence}, "track_id": {int(track)}}}'
                )
                lead = ",\n"
        file.write("]\n")


def write_ultralytics(path: Path, count: int) -> None:
    path.mkdir()
    for block in blocks(count):
        for start in range(0, len(block), IN_FRAME):
            part = block[start : start + IN_FRAME]
            size = part[:, 4:6] / (WIDTH, HEIGHT)
            centre = (part[:, 2:4] + part[:, 4:6] / 2) / (WIDTH, HEIGHT)
            lines = [
                f"0 {x:.6f} {y:.6f} {w:.6f} {h:.6f} {c:.6f} {int(t)}\n"
                for (x, y), (w, h), c, t in zip(
                    centre.tolist(), size.tolist(), part[:, 6].tolist(), part[:, 1], strict=True
                )
            ]
            (path / f"clip_{int(part[0, 0])}.txt").write_text("".join(lines))


FORMATS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "mot": ("boxes.txt", write_mot),
    "csv": ("boxes.csv", write_csv),
    "csv by track": ("track.csv", write_csv_by_track),
    "parquet": ("boxes.parquet", write_parquet),
    "coco": ("boxes.json", write_coco),
    "ultralytics": ("labels", write_ultralytics),
}


def read(path: Path) -> dict[str, object]:
    """What reading takes; for a process of its own."""
    start = time.perf_counter()
    boxes = read_detections(path, options=BoxOptions())
    seconds = time.perf_counter() - start
    digest = boxes.digest()
    return {
        "boxes": len(boxes),
        "digest": digest,
        "read_s": round(seconds, 1),
        "all_s": round(time.perf_counter() - start, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=50_000_000)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--folder", type=Path, help="scratch on a disk that holds the files")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        print(json.dumps(read(arguments.read)))
        return
    for name in arguments.formats.split(","):
        file, write = FORMATS[name]
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder) / file
            write(path, arguments.boxes)
            words = [sys.executable, __file__, "--read", str(path)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            print(json.dumps({"format": name, **json.loads(done.stdout)}), flush=True)
            if path.is_dir():
                shutil.rmtree(path)


if __name__ == "__main__":
    main()
