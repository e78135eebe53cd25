"""``sa-deploy data check``: what a data set holds and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress
from sa_runtime.errors import DatasetError

if TYPE_CHECKING:
    from sa_runtime.datasets.check import DatasetReport

_NAMED = 20
"""Unreadable images that are named; the others are counted (all of them with ``--json``)."""


def check(
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    dataset: Annotated[
        str, typer.Option("-d", "--dataset", help="Name of the data set, or auto to recognise it.")
    ] = "auto",
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Decode every image instead of looking at its first bytes."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Count a data set's images, ids and cameras against the published figures and find faults.

    Ends with exit code 2 where the folder is not laid out as a data set, and names the path to
    pass instead, or where images cannot be read.
    """
    from sa_runtime.datasets.check import check_dataset
    from sa_runtime.datasets.cifar100 import is_cifar100

    if dataset == "cifar100" or (dataset == "auto" and is_cifar100(root)):
        _check_cifar100(root, as_json)
        return
    with ExitStack() as stack:
        bars: list[Callable[..., None]] = []

        def advance(done: int, total: int) -> None:
            if not bars:  # only now is it known that there is a data set
                bars.append(stack.enter_context(progress("reading images", total)))
            bars[0](completed=done)

        report = check_dataset(root, dataset, decode=decode, advance=advance)
    if as_json:
        print_json(_as_dict(report))
    else:
        _print(report)
    if report.unreadable:
        path, fault = report.unreadable[0]
        raise DatasetError(
            f"{root}: {len(report.unreadable)} images cannot be read (the first: {path}: {fault}); "
            "copy or unpack them again"
        )


def _check_cifar100(root: Path, as_json: bool) -> None:
    """Images and classes of both splits; every image is read."""
    import numpy as np

    from sa_runtime.datasets.cifar100 import CLASSES, LAYOUT, PUBLISHED, load_cifar100

    found = load_cifar100(root)
    splits: dict[str, dict[str, Any]] = {
        split: {
            "images": len(labels),
            "classes": len(np.unique(labels)),
            "published": {"images": PUBLISHED[split], "classes": CLASSES},
        }
        for split, labels in (("train", found.train_labels), ("test", found.test_labels))
    }
    notes = [
        f"{split}: {counts[what]:,} {what}, published are {counts['published'][what]:,}"
        for split, counts in splits.items()
        for what in ("images", "classes")
        if counts[what] != counts["published"][what]
    ]
    if as_json:
        title = {"dataset": "cifar100", "title": LAYOUT.title, "root": str(root), "usable": True}
        print_json({**title, "splits": splits, "notes": notes})
        return
    print_table(
        f"{LAYOUT.title} (cifar100) in {root}",
        ("split", "images", "paper", "classes", "paper"),
        [
            (split, f"{counts['images']:,}", f"{PUBLISHED[split]:,}", counts["classes"], CLASSES)
            for split, counts in splits.items()
        ],
    )
    for text in notes:
        note(f"note: {text}")


def _print(report: DatasetReport) -> None:
    rows = []
    for name, split in report.splits.items():
        published = split.published
        images = "-" if published is None or published.images is None else f"{published.images:,}"
        persons = "-" if published is None else f"{published.persons:,}"
        rows.append(
            (
                name,
                f"{split.images:,}",
                images,
                f"{split.persons:,}",
                persons,
                split.cameras,
                f"{split.junk:,}",
                f"{split.distractors:,}",
            )
        )
    print_table(
        f"{report.title} ({report.dataset}) in {report.root}",
        ("split", "images", "paper", "ids", "paper", "cameras", "junk", "distractors"),
        rows,
    )
    for path, fault in report.unreadable[:_NAMED]:
        typer.echo(f"unreadable: {path}: {fault}")
    for problem in report.problems:
        typer.echo(f"problem: {problem}")
    for text in report.notes:
        note(f"note: {text}")


def _as_dict(report: DatasetReport) -> dict[str, Any]:
    return {
        "dataset": report.dataset,
        "title": report.title,
        "root": str(report.root),
        "usable": not report.unreadable,
        "splits": {
            name: {
                "images": split.images,
                "ids": split.persons,
                "cameras": split.cameras,
                "junk": split.junk,
                "distractors": split.distractors,
                "published": None if split.published is None else split.published._asdict(),
            }
            for name, split in report.splits.items()
        },
        "unreadable": [{"path": str(path), "fault": fault} for path, fault in report.unreadable],
        "problems": list(report.problems),
        "notes": list(report.notes),
    }
