"""``sa-deploy data check``: what a data set holds and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import note, print_json, print_table, progress
from sa_runtime.errors import DatasetError, InputError

if TYPE_CHECKING:
    from sa_runtime.datasets.check import DatasetReport

_NAMED = 20
"""Unreadable images that are named; the others are counted (all of them with ``--json``)."""


def check(
    root: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Folder that holds the data set, as --data-dir."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Folder that holds the data set; the same as FOLDER.",
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Layout of the data set: market, duke, cuhk03, msmt17, folder, synthetic or "
            "cifar100; auto recognises it.",
        ),
    ] = "auto",
    decode: Annotated[
        bool,
        typer.Option(
            "--decode", help="Decode every image instead of looking at its first and last bytes."
        ),
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Count a data set's images, ids and cameras against the published figures and find faults.

    Ends with exit code 2 where the folder is not laid out as a data set, and names the path to
    pass instead, or where images cannot be read.

    Examples:
        sa-deploy data check --data-dir Market-1501
        sa-deploy data check -d duke --data-dir DukeMTMC-reID --decode
    """
    from sa_runtime.datasets.cifar100 import is_cifar100

    folder = _folder(root, data_dir)
    if dataset == "cifar100" or (dataset == "auto" and is_cifar100(folder)):
        _check_cifar100(folder, json_output)
        return
    report = _checked(folder, dataset, decode)
    if json_output:
        print_json(report.to_dict())
    else:
        _print(report)
    if report.unreadable:
        path, fault = report.unreadable[0]
        raise DatasetError(
            f"{folder}: {len(report.unreadable)} images cannot be read (the first: {path}: "
            f"{fault}); copy or unpack them again"
        )


def _folder(root: Path | None, data_dir: Path | None) -> Path:
    """The folder, as ``--data-dir`` or as it was given before there was that option."""
    if root is not None and data_dir is not None:
        raise InputError(f"{root} and --data-dir {data_dir}: give one folder")
    folder = data_dir or root
    if folder is None:
        raise InputError("--data-dir: expected the folder of a data set")
    return folder


def _checked(folder: Path, dataset: str, decode: bool) -> DatasetReport:
    from sa_runtime.datasets.check import check_dataset

    with ExitStack() as stack:
        bars: list[Callable[..., None]] = []

        def advance(done: int, total: int) -> None:
            if not bars:  # only now is it known that there is a data set
                bars.append(stack.enter_context(progress("reading images", total, unit="image")))
            bars[0](completed=done)

        return check_dataset(folder, dataset, decode=decode, advance=advance)


def _check_cifar100(root: Path, json_output: bool) -> None:
    """Images and classes of both splits; every image is read."""
    from sa_runtime.datasets.cifar100 import LAYOUT, load_cifar100

    found = load_cifar100(root).to_dict()
    if json_output:
        print_json({"dataset": "cifar100", "title": LAYOUT.title, "root": str(root), **found})
        return
    print_table(
        f"{LAYOUT.title} (cifar100) in {root}",
        ("split", "images", "paper", "classes", "paper"),
        [
            (
                split,
                f"{counts['images']:,}",
                f"{counts['published']['images']:,}",
                counts["classes"],
                counts["published"]["classes"],
            )
            for split, counts in found["splits"].items()
        ],
    )
    for text in found["notes"]:
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
