"""``sa-deploy bundle``: what NVIDIA's servers want beside a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import note, print_json, print_table


def bundle(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="ONNX artefact or TensorRT engine to be served."),
    ],
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Triton model repository that the model is written into; none by default.",
        ),
    ] = None,
    deepstream: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file that DeepStream's nvtracker reads its ReID from; none by default.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the model on Triton.")
    ] = "sa_reid",
    max_batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="CROPS",
            help="Largest batch that is served; a fixed batch of the artefact goes before it.",
        ),
    ] = 32,
    max_delay_us: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MICROSECONDS",
            help="How long a request waits for others to share its batch on Triton.",
        ),
    ] = 2000,
    instances: Annotated[
        int, typer.Option(min=1, metavar="N", help="Copies of the model that Triton runs.")
    ] = 1,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Let Triton run the model on the processor, not a GPU.")
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Write a Triton model repository, or a DeepStream ReID section.

    Examples:
        sa-deploy bundle model.onnx --triton repository --max-batch 64
        sa-deploy bundle model.engine --deepstream config_tracker_reid.yml
    """
    from sa_export.bundle import TritonOptions, write_deepstream, write_triton
    from sa_runtime.errors import InputError

    if triton is None and deepstream is None:
        raise InputError("nothing to write; expected --triton DIR or --deepstream FILE")
    written: dict[str, str] = {}
    if triton is not None:
        options = TritonOptions(
            name=name,
            max_batch=max_batch,
            delay_us=max_delay_us,
            instances=instances,
            gpu=not cpu,
        )
        written["triton"] = str(write_triton(model, triton, options))
    if deepstream is not None:
        written["deepstream"] = str(write_deepstream(model, deepstream, batch=max_batch))
    if json_output:
        print_json(written)
        return
    print_table("Written", ("for", "file"), written.items(), figures=False)
    if triton is not None:
        note(f"next: tritonserver --model-repository {triton}")
