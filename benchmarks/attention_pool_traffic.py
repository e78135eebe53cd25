"""What the fused attention pool reads and needs, beside the unfused chain and the floor.

Needs no GPU: bytes follow from the plan that the tests count reads against, registers and
shared memory come from ``ptxas``. ``asked`` counts every load of the kernels; ``memory``
what is left where the L2 cache holds one image (0.8 MB here) but not a batch between two
kernels, which is so on every GPU from Ampere on::

    python -m benchmarks.attention_pool_traffic            # tables
    python -m benchmarks.attention_pool_traffic --json out.json
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import record
from sa_runtime.tensorrt.ptx import kernel_from_pool, resources
from sa_runtime.tensorrt.tactics import ELEMENTS, TACTICS, Element, Pool, plan, tactics_for

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
MAPS = {
    "ResNet-50, 384x128": (2048, 24, 8),
    "ResNet-50, 256x128": (2048, 16, 8),
    "resnet10-thin, 128x64": (256, 8, 4),
}
BYTES: dict[Element, int] = {"fp32": 4, "fp16": 2, "bf16": 2}


def traffic(name: str, element: Element, parts: int) -> list[dict[str, Any]]:
    """Bytes per image that go to and from memory, and those asked of the caches."""
    channels, height, width = MAPS[name]
    size = BYTES[element]
    pixels = channels * height * width
    image, pooled, attention = pixels * size, channels * parts * size, height * width * 4
    pool = Pool(
        channels=channels,
        height=height,
        width=width,
        parts=parts,
        normalize="sum",
        element=element,
    )
    row: dict[str, Any] = {"map": name, "type": element, "parts": parts}
    rows: list[dict[str, Any]] = [
        # One kernel per operator: sum over channels, weigh, pool; FP32 in between.
        {
            **row,
            "how": "unfused, layer by layer",
            "memory": image + attention + image + attention + 2 * pixels * 4 + pooled,
            "asked": image + attention + image + attention + 2 * pixels * 4 + pooled,
        },
        # What a compiler can do without the whole: weighing joined to pooling.
        {
            **row,
            "how": "weighing and pooling joined",
            "memory": image + attention + image + attention + pooled,
            "asked": image + attention + image + attention + pooled,
        },
    ]
    for number in tactics_for(pool):
        cut = plan(pool, TACTICS[number - 1])
        rows.append(
            {
                **row,
                "how": f"fused, tactic {number}: {cut.splits} programs, {cut.passes} passes",
                "memory": image + pooled,
                "asked": cut.reads * image + pooled,
            }
        )
    rows.append(
        {**row, "how": "floor: one read", "memory": image + pooled, "asked": image + pooled}
    )
    for entry in rows:
        entry["of_the_floor"] = round(entry["memory"] / (image + pooled), 2)
    return rows


def needs(name: str, element: Element, parts: int) -> list[dict[str, Any]]:
    """Registers, spills and shared memory of every tactic on every architecture."""
    channels, height, width = MAPS[name]
    pool = Pool(
        channels=channels,
        height=height,
        width=width,
        parts=parts,
        normalize="sum",
        element=element,
    )
    rows = []
    for number in tactics_for(pool):
        for architecture in ARCHITECTURES:
            kernel = kernel_from_pool(pool, number, architecture)
            found = resources(kernel.ptx, architecture)
            rows.append(
                {
                    "map": name,
                    "type": element,
                    "parts": parts,
                    "tactic": number,
                    "architecture": architecture,
                    "threads": kernel.threads,
                    "registers": found.registers,
                    "spill_bytes": found.spill_bytes,
                    "shared_bytes": found.shared_bytes + kernel.shared_bytes,
                }
            )
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of rows with the same keys."""
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        cells = (f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        table.add_row(*cells)
    Console(width=120).print(table)


def main() -> None:
    """Print the tables, or write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here instead")
    options = parser.parse_args()
    bytes_per_image = [
        row
        for name in MAPS
        for row in traffic(name, "fp16", 1 if name.startswith("resnet10") else 6)
    ]
    resource_rows = [row for element in ELEMENTS for row in needs("ResNet-50, 384x128", element, 6)]
    if options.json:
        found = {
            "triton": version("triton"),
            "bytes_per_image": bytes_per_image,
            "resources": resource_rows,
        }
        record("attention-pool-traffic/1", found, options.json)
        return
    show("Bytes per image: memory, and asked of the caches", bytes_per_image)
    show("What ptxas says", resource_rows)


if __name__ == "__main__":
    main()
