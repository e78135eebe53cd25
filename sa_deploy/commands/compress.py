"""``sa-deploy compress``: an artefact whose vectors are shorter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import Dataset, JsonOutput
from sa_deploy.output import note, print_json, print_table, progress
from sa_runtime.errors import InputError

if TYPE_CHECKING:
    from sa_runtime.outputs.base import StoredEmbeddings
    from sa_runtime.retrieval.compression import CurvePoint

_CURVE = (16, 32, 64, 128, 256, 512, 1024)


def compress(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="ONNX artefact of `sa-deploy export` or `adopt`."),
    ],
    fit: Annotated[
        list[Path],
        typer.Option(
            metavar="EMBEDDINGS",
            help="Embeddings that the model gave of training images, to fit the components on; "
            "may be repeated.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="ONNX file to write, NAME.onnx.")
    ],
    dim: Annotated[
        int, typer.Option(min=1, metavar="N", help="Numbers in a vector that are kept.")
    ] = 256,
    whitening: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="POWER",
            help="Power of its deviation that a component is divided by; 0 does not whiten.",
        ),
    ] = 1.0,
    dataset: Dataset = "auto",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Folder of a data set on which figures are held against bytes; none without.",
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Write an artefact that gives shorter vectors.

    They are principal components, whitened, which become part of the artefact. The short
    vectors are a feature space of their own.

    Examples:
        sa-deploy compress model.onnx --fit train.parquet --dim 256 --out small.onnx
        sa-deploy compress m.onnx --fit t.parquet --out s.onnx -d folder --data-dir w
    """
    from sa_export.compress import compress_model
    from sa_runtime.outputs.read import read_embeddings

    if data_dir is None and dataset != "auto":
        raise InputError("--dataset: expected --data-dir too")
    fitted_on = read_embeddings(*fit)
    found = compress_model(model, fitted_on, out, dim, whitening=whitening)
    note(f"written: {found.path}")
    curve: list[CurvePoint] = []
    if data_dir is not None:
        curve = _curve(model, fitted_on, dataset, data_dir, dim, whitening)
    if json_output:
        print_json({**found.to_dict(), "curve": [point.to_dict() for point in curve]})
        return
    print_table(
        "Compressed",
        ("", "value"),
        [
            ("numbers in a vector", f"{len(found.projection.mean):,} to {dim:,}"),
            ("variance kept", f"{100 * found.projection.kept:.1f} %"),
            ("fitted on", f"{found.fitted_on:,} vectors"),
            ("feature space", found.contract.space),
        ],
    )
    if curve:
        print_table(
            "Figures against bytes (%)",
            ("numbers", "stored as", "bytes a vector", "mAP", "rank-1"),
            [
                (
                    f"{point.dim:,}" if point.compressed else f"{point.dim:,} (whole)",
                    point.stored,
                    f"{point.size_bytes:,}",
                    f"{100 * point.mAP:.2f}",
                    f"{100 * point.rank1:.2f}",
                )
                for point in curve
            ],
        )


def _curve(
    model: Path,
    fitted_on: StoredEmbeddings,
    dataset: str,
    data_dir: Path,
    dim: int,
    whitening: float,
) -> list[CurvePoint]:
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.retrieval.compression import size_curve
    from sa_runtime.retrieval.evaluation import evaluate

    images = load_dataset(dataset, data_dir)
    count = len(images.query) + len(images.gallery)
    with progress("embed", count) as advance:
        report = evaluate(model, images, on_progress=advance)
    most = min(len(fitted_on.vectors) - 1, report.query.shape[1])
    dims = sorted({size for size in _CURVE if size <= most} | {dim})
    return size_curve(
        fitted_on.vectors, report.query, report.gallery, images, dims, whitening=whitening
    )
