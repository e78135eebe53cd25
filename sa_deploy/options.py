"""Arguments and options that several commands take, each declared once.

A command's parameter names its type: ``data_dir: DataDir``. The help of each is a sentence that
stands alone; a default that is a value stands behind it in the help by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

JsonOutput = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="Artefact of `sa-deploy export`, `adopt` or `build` to run."
    ),
]
Weights = Annotated[
    Path,
    typer.Argument(
        metavar="WEIGHTS", help="Checkpoint of `sa-deploy train`, or one of the authors'."
    ),
]

DataDir = Annotated[
    Path, typer.Option("--data-dir", metavar="FOLDER", help="Folder that holds the data set.")
]
DataDirs = Annotated[
    str,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Folder that holds the data set; for several data sets, folders joined by commas.",
    ),
]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Layout of the data set: market, duke, cuhk03, msmt17, folder or synthetic"
        "{sa_deploy.datasets}; auto recognises it.",
    ),
]
TrainingDataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Layout of the data set: market, duke, cuhk03, msmt17, folder, synthetic or cifar100; "
        "auto recognises it, several joined by commas are trained on together{sa_deploy.datasets}.",
    ),
]

Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Runtime that runs the model, such as openvino or onnxruntime; auto measures those "
        "that open it and takes the fastest.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Folder that keeps what a runtime builds (TensorRT engines, compiled models); "
        "without it nothing is kept.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device of the runtime, such as cuda:1, tensorrt (inside ONNX Runtime) or GPU "
        "(OpenVINO); the runtime's own choice by default.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, metavar="CROPS", help="Most crops that are run at a time."),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        "--embedding",
        metavar="NAME",
        help="Which of the artefact's embeddings is taken; its first by default.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=0,
        metavar="N",
        help="Threads of the runtime; its own choice by default, which is one for each core.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="Address of a running Ray cluster; by default one is started on this machine.",
    ),
]
Validation = Annotated[
    Path | None,
    typer.Option(
        "--validation",
        metavar="FOLDER",
        help="Crops on which artefact and network are compared: a data set in the layout of "
        "Market-1501, or any folder of crops; a small generated set by default.",
    ),
]
ValidationCrops = Annotated[
    int,
    typer.Option(
        "--validation-crops",
        min=4,
        metavar="CROPS",
        help="Use about this many of the validation crops, all crops of a person or none.",
    ),
]

Cmc = Literal["market1501", "allshots", "cuhk03"]
"""The conventions of :data:`sa_runtime.retrieval.metrics.CONVENTIONS`."""


def runner_options(
    *,
    cache: Path | None,
    device: str | None,
    embedding: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The options of a runner that were given.

    >>> runner_options(cache=None, device="cuda:1")
    {'device': 'cuda:1'}
    """
    given = {"cache": cache, "device": device, "embedding": embedding}
    found: dict[str, Any] = {n: str(value) for n, value in given.items() if value is not None}
    return found if threads is None else {**found, "threads": threads}
