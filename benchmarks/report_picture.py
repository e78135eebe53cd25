"""The picture of a report that the documentation shows, by a browser without a window.

Run, with playwright and Chromium there::

    sa-deploy demo
    sa-deploy export out/demo/run/checkpoint.pt --out out/demo/int8 --format onnx \\
        --precision int8 --validation out/demo/world
    sa-deploy evaluate out/demo/run/model.onnx out/demo/int8/model.int8.onnx -d synthetic \\
        --data-dir out/demo/world --report out/demo/report
    python benchmarks/report_picture.py out/demo/report/report.html docs/images/report.jpg

Pictures of real people never enter the repository: show a drawn world.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from sa_runtime.system.files import atomic_path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, SHOWN = 1280, 794


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(asked.report.resolve().as_uri())
        page.wait_for_selector("body[data-ready]")
        data = page.screenshot(full_page=True)
        opened.close()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    size = (SHOWN, round(image.shape[0] * SHOWN / image.shape[1]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    with atomic_path(asked.picture) as temporary:
        temporary.write_bytes(jpeg.tobytes())


if __name__ == "__main__":
    main()
