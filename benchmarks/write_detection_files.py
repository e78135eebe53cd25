"""Writes ``tests/runtime/detections/written``: the same boxes, each by the program users have.

Run it where pandas, supervision, pycocotools, motmetrics and ultralytics are installed::

    python benchmarks/write_detection_files.py

The versions that wrote what is there stand in its ``versions.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path

import motmetrics
import numpy as np
import pandas as pd
import supervision as sv
import torch
from pycocotools.coco import COCO
from ultralytics.engine.results import Results

FOLDER = Path(__file__).parents[1] / "tests" / "runtime" / "detections" / "written"
WIDTH, HEIGHT = 320, 240
BOXES = [
    # frame, id, left, top, width, height, confidence, class; no edge half a pixel, which rounds
    (1, 1, 20.25, 30.25, 40.0, 80.5, 0.875, 0),
    (1, 2, 100.0, 40.0, 32.25, 96.0, 0.75, 0),
    (2, 1, 24.25, 31.0, 40.0, 80.0, 0.5, 0),
    (4, 2, 110.0, 41.75, 32.0, 96.5, 0.9375, 0),
    (4, 3, 200.0, 60.0, 48.0, 120.0, 0.25, 2),
]
NAMES = {0: "person", 2: "car"}


def main() -> None:
    columns = ["frame", "track_id", "x1", "y1", "x2", "y2", "conf", "class"]
    table = pd.DataFrame(
        [(f, i, x, y, x + w, y + h, c, NAMES[k]) for f, i, x, y, w, h, c, k in BOXES],
        columns=columns,
    )
    table.to_csv(FOLDER / "pandas.csv", index=False)
    table.to_csv(FOLDER / "pandas_index.tsv", sep="\t")
    table.to_parquet(FOLDER / "pandas.parquet")
    write_mot()
    write_supervision()
    write_coco()
    write_ultralytics()
    names = ["pandas", "pyarrow", "supervision", "pycocotools", "motmetrics", "ultralytics"]
    versions = {name: version(name) for name in names}
    (FOLDER / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def write_mot() -> None:
    lines = [",".join(map(str, (*box[:6], box[6], -1, -1, -1))) for box in BOXES]
    (FOLDER / "mot15.txt").write_text("\n".join(lines) + "\n")
    lines = [",".join(map(str, (*box[:7], box[7] + 1, 1.0))) for box in BOXES]
    (FOLDER / "mot16_gt.txt").write_text("\n".join(lines) + "\n")
    loaded = motmetrics.io.loadtxt(FOLDER / "mot15.txt", fmt="mot16")
    loaded[["X", "Y"]] += 1  # which it takes off, as MATLAB counts pixels from 1
    loaded.to_csv(FOLDER / "motmetrics.csv")


def of_frames() -> dict[int, sv.Detections]:
    found = {}
    for frame in sorted({box[0] for box in BOXES}):
        rows = [box for box in BOXES if box[0] == frame]
        found[frame] = sv.Detections(
            xyxy=np.array([(x, y, x + w, y + h) for _, _, x, y, w, h, _, _ in rows], np.float32),
            confidence=np.array([row[6] for row in rows], np.float32),
            class_id=np.array([row[7] for row in rows]),
            tracker_id=np.array([row[1] for row in rows]),
        )
    return found


def write_supervision() -> None:
    with sv.CSVSink(str(FOLDER / "supervision.csv")) as sink:
        for frame, found in of_frames().items():
            sink.append(found, {"frame_number": frame})


def write_coco() -> None:
    images = [
        {"id": 10 + frame, "file_name": f"{frame:06d}.jpg", "width": WIDTH, "height": HEIGHT}
        for frame in range(1, 5)
    ]
    categories = [{"id": key + 1, "name": name} for key, name in NAMES.items()]
    annotations = [
        {
            "id": number,
            "image_id": 10 + f,
            "category_id": k + 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
            "track_id": i,
            "score": c,
        }
        for number, (f, i, x, y, w, h, c, k) in enumerate(BOXES, 1)
    ]
    text = {"images": images, "categories": categories, "annotations": annotations}
    (FOLDER / "coco.json").write_text(json.dumps(text, indent=1) + "\n")
    results = [
        {key: one[key] for key in ("image_id", "category_id", "bbox", "score", "track_id")}
        for one in annotations
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(FOLDER / "coco.json")).loadRes(results)
    kept = [
        {key: one[key] for key in ("image_id", "category_id", "bbox", "score", "track_id")}
        for one in loaded.loadAnns(loaded.getAnnIds())
    ]
    (FOLDER / "coco_results.json").write_text(json.dumps(kept) + "\n")


def write_ultralytics() -> None:
    labels = FOLDER / "labels"
    labels.mkdir(exist_ok=True)
    for file in labels.glob("*.txt"):
        file.unlink()
    for frame, found in of_frames().items():
        data = np.concatenate(
            [
                found.xyxy,
                found.tracker_id[:, None],
                found.confidence[:, None],
                found.class_id[:, None],
            ],
            axis=1,
        )
        result = Results(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8),
            path="clip.mp4",
            names=NAMES,
            boxes=torch.from_numpy(data.astype(np.float32)),
        )
        result.save_txt(labels / f"clip_{frame}.txt", save_conf=True)


if __name__ == "__main__":
    main()
