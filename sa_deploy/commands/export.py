"""``sa-deploy export``: artefacts from weights, each proven on crops of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table


def export(
    weights: Annotated[
        Path, typer.Argument(help="A checkpoint of `sa-deploy train` or the authors'.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the artefacts.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx.")] = False,
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="Write model.torchscript for libtorch.")
    ] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="Write model.pt2 of torch.export.")
    ] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Write model.xml and model.bin (OpenVINO IR).")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe of bare weights, which do not say their own: sa, tiny, ..."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    embedding: Annotated[
        str,
        typer.Option(
            help="parts (the authors' test feature), global or reduced; several with commas."
        ),
    ] = "parts",
    input_kind: Annotated[
        str,
        typer.Option(
            "--input", help="uint8-nhwc (BGR as OpenCV gives it) or nchw-float (RGB, 0 to 1)."
        ),
    ] = "uint8-nhwc",
    height: Annotated[
        int | None, typer.Option(min=16, help="Of the input, instead of the network's.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=16, help="Of the input, instead of the network's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="A fixed batch size; any size by default.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(min=18, help="Of the standard ONNX operators (18; bf16: 22).")
    ] = None,
    attention_map: Annotated[
        bool, typer.Option("--attention-map", help="Add the attention map as an output.")
    ] = False,
    plugin: Annotated[
        bool,
        typer.Option(
            help="AttentionPool as one node that TensorRT can fuse, or as standard operators."
        ),
    ] = True,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Crops to compare artefact and network on: a folder in Market-1501 layout, or "
            "any folder of crops. A small generated set by default."
        ),
    ] = None,
    validation_crops: Annotated[
        int, typer.Option(min=4, help="Use about so many of them, whole people.")
    ] = 2000,
    int8_target: Annotated[
        str | None,
        typer.Option(
            help="tensorrt (symmetric, the rest in FP16), cpu (uint8 activations) or any "
            "(symmetric); by default cpu for OpenVINO, any for ONNX."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Crops that int8 ranges are taken from: a folder, or a Parquet file of "
            "`sa-deploy embed`. A small generated set by default."
        ),
    ] = None,
    calibration_crops: Annotated[
        int, typer.Option(min=4, help="Use at most so many of them.")
    ] = 512,
    calibrator: Annotated[
        str, typer.Option(help="entropy, mse, percentile or min-max.")
    ] = "entropy",
    max_map_drop: Annotated[
        float, typer.Option(min=0, help="Points of mAP the artefact may lose.")
    ] = 0.5,
    min_cosine: Annotated[
        float | None, typer.Option(help="Least cosine to the network on the worst crop.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Write artefacts that find the same people as their network."""
    from sa_runtime.errors import InputError

    wanted = {
        "onnx": onnx,
        "torchscript": torchscript,
        "torch-export": torch_export,
        "openvino": openvino,
    }
    if not any(wanted.values()):
        raise InputError(
            "no format chosen; expected one or more of --onnx, --openvino, --torchscript, "
            "--torch-export"
        )
    import dataclasses

    from sa_export.export import CropSources, exporter_from_checkpoint, load_weights_of
    from sa_export.options import FORMATS, ExportOptions
    from sa_export.parity import gates_for

    options = ExportOptions(
        embeddings=tuple(name.strip() for name in embedding.split(",")),
        input=input_kind,  # type: ignore[arg-type]
        attention_map=attention_map,
        precision=precision,  # type: ignore[arg-type]
        height=height,
        width=width,
        opset=opset,
        batch=batch,
        plugin=plugin,
    )
    gates = gates_for(options.precision, max_map_drop=max_map_drop, min_cosine=min_cosine)
    exporter = exporter_from_checkpoint(
        load_weights_of(weights, recipe),
        dataclasses.replace(options, gates=gates),
        CropSources(
            validation=validation,
            validation_limit=validation_crops,
            calibration=calibration,
            calibration_limit=calibration_crops,
            calibrator=calibrator,  # type: ignore[arg-type]
            int8_target=int8_target,  # type: ignore[arg-type]
        ),
        on_note=note,
    )
    artefacts = [exporter.write(kind, out) for kind in FORMATS if wanted[kind]]
    if json_output:
        print_json({"artefacts": [artefact.to_dict() for artefact in artefacts]})
        return
    for artefact in artefacts:
        print_table(str(artefact.path), ("what", "value"), artefact.rows(), figures=False)
    note(f"next: sa-deploy embed {artefacts[0].path} IMAGES --out embeddings.parquet")
