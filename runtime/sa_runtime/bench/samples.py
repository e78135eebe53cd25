"""The crops that a benchmark runs on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sa_runtime import crops
from sa_runtime.arrays import Images
from sa_runtime.errors import bad_value

COUNT = 64


def bench_crops(
    source: str, height: int, width: int, folder: Path, detections: Path | None
) -> Images:
    """Up to 64 crops at a network's size.

    Args:
        source: ``synthetic`` draws people of the synthetic data set; a folder of crops or a video
            with ``detections`` gives its own, evenly spread over it.
        height: of a crop.
        width: of a crop.
        folder: for what is drawn on the way.
        detections: boxes of the video, else ``None``.

    Returns:
        (N, height, width, 3) uint8 BGR.

    Raises:
        InputError: no such source, or nothing in it.
    """
    from sa_runtime.sources.base import ItemStream
    from sa_runtime.sources.table import find_sources

    path = Path(source)
    if source == "synthetic":
        path = _synthetic(folder / "synthetic")
    found: list[Images] = []
    sources = find_sources([path], [detections] if detections else [])
    rows = sum(map(len, sources))
    step = max(1, rows // COUNT)
    seen = 0
    with ItemStream(sources) as items:
        for item in items:
            frame_height, frame_width = item.image.shape[:2]
            boxes, valid = crops.clip_boxes(item.boxes, frame_height, frame_width)
            for box in boxes[valid]:
                if seen % step == 0 and len(found) < COUNT:
                    found.append(crops.crop_batch(item.image, box[None], height, width))
                seen += 1
            if len(found) == COUNT:
                break
    if not found:
        raise bad_value("source", str(source), "no crop in it")
    return np.concatenate(found)


def _synthetic(root: Path) -> Path:
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic

    config = SyntheticConfig(
        identities=9, cameras=4, images_per_camera=2, distractors=0, junk=0, videos=0
    )
    write_synthetic(root, config, workers=1)
    return root
