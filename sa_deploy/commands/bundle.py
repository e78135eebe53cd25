"""``sa-deploy bundle``: what NVIDIA's servers want beside a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table


def bundle(
    model: Annotated[Path, typer.Argument(help="An ONNX artefact or a TensorRT engine.")],
    triton: Annotated[
        Path | None, typer.Option(help="Triton model repository to write the model into.")
    ] = None,
    deepstream: Annotated[
        Path | None, typer.Option(help="YAML file for nvtracker's ReID section.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model on Triton.")] = "sa_reid",
    max_batch: Annotated[
        int, typer.Option(min=1, help="Largest batch, where the artefact takes any.")
    ] = 32,
    max_delay_us: Annotated[
        int, typer.Option(min=0, help="Microseconds a request waits for others on Triton.")
    ] = 2000,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model on Triton.")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the processor on Triton.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Write a Triton model repository, or a DeepStream ReID section."""
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
