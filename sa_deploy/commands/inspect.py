"""``sa-deploy inspect``: what an artefact is, read from the file alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import command_line, note, print_json, print_table

if TYPE_CHECKING:
    from sa_export.describe import Description
    from sa_runtime.artefact.contract import Contract

_OPERATORS_SHOWN = 12
_EMBEDDINGS = {
    "parts": "parts (horizontal parts of the last map, the authors' test feature)",
    "global": "global (the last map pooled once)",
    "reduced": "reduced (parts and their mean after the reduction)",
}


def inspect(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Artefact to read, or any ONNX or TorchScript file or checkpoint of others.",
        ),
    ],
    json_output: JsonOutput = False,
) -> None:
    """Show what a model file takes and gives, and where it comes from.

    Of a model of others it says what `sa-deploy adopt` would make of it.

    Examples:
        sa-deploy inspect model.onnx
        sa-deploy inspect osnet_x0_25_msmt17.pt --json
    """
    from sa_export.describe import describe

    if not _carries_contract(model):
        _show_foreign(model, json_output, context)
        return
    description = describe(model)
    if json_output:
        print_json(description.to_dict())
        return
    contract = description.contract
    print_table(str(model), ("what", "value"), _file_rows(description), figures=False)
    print_table("In and out", ("tensor", "what it holds"), _tensor_rows(contract), figures=False)
    print_table("Where it comes from", ("what", "value"), _origin_rows(contract), figures=False)
    if contract.quantization:
        rows = _quantization_rows(contract)
        print_table("How it was quantised", ("what", "value"), rows, figures=False)
    main = contract.output.embedding
    for embedding in sorted(contract.parity, key=lambda name: (name != main, name)):
        parity = contract.parity[embedding]
        title = f"Compared with its network: {embedding}"
        print_table(title, ("what", "value"), _parity(parity), figures=False)
    if description.engine:
        rows = [(key.replace("_", " "), _short(value)) for key, value in description.engine.items()]
        print_table("The engine", ("what", "value"), rows, figures=False)
    note(
        f"vectors of this file compare with those of feature space {contract.space} only; "
        f"next: " + command_line("embed", model, "IMAGES", "--out", "embeddings.parquet")
    )


def _carries_contract(model: Path) -> bool:
    """Whether a file is an artefact; one of others, or none at all, is looked at otherwise."""
    from sa_runtime.artefact.formats import ARTEFACTS
    from sa_runtime.artefact.metadata import contract_text

    if not model.is_file() or model.suffix not in ARTEFACTS:
        return False
    foreign = model.suffix in (".onnx", ".torchscript")
    return not foreign or contract_text(model) is not None


def _show_foreign(model: Path, json_output: bool, context: typer.Context) -> None:
    from sa_deploy.errors import for_command, running_command
    from sa_export.look import look
    from sa_runtime.errors import InputError

    found = look(model)
    if json_output:
        print_json(found.to_dict())
        return
    adopt = running_command(context.find_root().command, ["adopt"])
    notes = tuple(for_command(InputError(text), adopt) for text in found.notes)
    found = dataclasses.replace(found, notes=notes)
    print_table(str(model), ("what", "value"), found.rows(), figures=False)
    if found.adopt:
        note(f"no contract in it; next: {found.adopt}")


def _file_rows(description: Description) -> list[tuple[str, str]]:
    contract, graph = description.contract, description.graph
    rows = [
        ("format", description.format),
        ("size", f"{description.size_bytes / 1e6:.1f} MB"),
        ("precision", contract.precision),
        ("batch", _batch(contract)),
    ]
    if contract.flops:
        rows.append(("work", f"{contract.flops / 1e9:.2f} GFLOP an image"))
    if description.runtimes:
        rows.append(("runs on", ", ".join(description.runtimes)))
    if graph is not None and graph.weights:
        kinds = ((n, k) for k, n in graph.weights.items() if n >= 1000)
        rows.append(("weights", ", ".join(f"{n:,} {kind}" for n, kind in kinds)))
    if graph is not None:
        shown = list(graph.operators.items())
        text = ", ".join(f"{n} {name}" for name, n in shown[:_OPERATORS_SHOWN])
        more = len(shown) - _OPERATORS_SHOWN
        rows.append(("operators", text + (f" and {more} other kinds" if more > 0 else "")))
        fused = graph.operators.get("AttentionPool")
        if fused:
            rows.append(
                (
                    "attention",
                    f"{fused} AttentionPool node(s), a function in the file; TensorRT's plugin "
                    "fuses them",
                )
            )
    return rows


def _tensor_rows(contract: Contract) -> list[tuple[str, str]]:
    spec = contract.input
    size = f"{spec.height}, {spec.width}"
    shape = f"(N, {size}, 3)" if spec.layout == "nhwc" else f"(N, 3, {size})"
    if spec.dtype == "uint8":
        pixels = "0 to 255, as OpenCV reads them; normalisation is inside the graph"
    elif spec.mean is None or spec.std is None:
        pixels = "scaled to 0..1; normalisation is inside the graph"
    else:
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (spec.mean, spec.std))
        pixels = f"scaled to 0..1, less {mean}, divided by {std}"
    rows = [
        (f"in: {spec.name}", f"{shape} {spec.dtype}, {spec.colour.upper()} pixels {pixels}"),
        ("", f"crops resized to {spec.width}x{spec.height} by {spec.resize}"),
        (
            f"out: {contract.output.name}",
            f"(N, {contract.output.dim}) float32, rows of unit length: "
            f"{_EMBEDDINGS.get(contract.output.embedding, contract.output.embedding)}, "
            f"feature space {contract.space}",
        ),
    ]
    for extra in contract.extra_outputs:
        what = (
            f"rows of unit length: {_EMBEDDINGS.get(extra.embedding, extra.embedding)}, "
            f"feature space {extra.space}"
            if extra.kind == "embedding"
            else "attention map of mean 1"
        )
        shape = f"(N, {', '.join(map(str, extra.shape))})"
        rows.append((f"out: {extra.name}", f"{shape} float32, {what}"))
    return rows


def _origin_rows(contract: Contract) -> list[tuple[str, str]]:
    rows = [(key.replace("_", " "), _short(value)) for key, value in contract.network.items()]
    return [
        ("made by", contract.producer),
        *([("recipe", contract.recipe)] if contract.recipe else []),
        ("weights (SHA-256)", contract.weights_sha256),
        *rows,
    ]


def _quantization_rows(contract: Contract) -> list[tuple[str, str]]:
    from sa_export.describe import quantization_rows

    apart = ("kept", "layers", "map_drop_all_quantised")
    made = {key: value for key, value in contract.quantization.items() if key not in apart}
    rows = [(key.replace("_", " "), _short(value)) for key, value in made.items()]
    return [*rows, *quantization_rows(contract)]


def _parity(parity: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, key in (("mAP", "mAP"), ("rank-1", "rank1")):
        if key in parity:
            ours, theirs = 100 * parity[key], 100 * parity[f"{key}_network"]
            rows.append((name, f"{ours:.2f} % (network {theirs:.2f} %)"))
    return [
        *rows,
        ("same first match", f"{100 * parity['rank1_agreement']:.1f} % of the queries"),
        ("same top ten", f"{100 * parity['top10_overlap']:.1f} %"),
        ("cosine", f"least {parity['min_cosine']:.6f}, mean {parity['mean_cosine']:.6f}"),
        ("alone and among others", f"cosine {parity['independence']:.6f}"),
        ("measured on", f"{parity['crops']} crops ({parity['validation']}), {parity['runtime']}"),
    ]


def _batch(contract: Contract) -> str:
    if contract.max_batch is None:
        return "any"
    return f"{'exactly' if contract.fixed_batch else 'up to'} {contract.max_batch}"


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
