"""``sa-deploy bench``: how fast artefacts run here, on which runtime, and what they lose."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.options import Dataset, Device, JsonOutput
from sa_deploy.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_runtime.bench.compare import Comparison
    from sa_runtime.bench.result import BenchResult, ContenderResult


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODELS",
            help="Artefacts of a size, checkpoints, and raw files of others.",
        ),
    ],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Runtime to measure, or auto; may be repeated. All that open a model by default.",
        ),
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,N", help="Crops of a batch; several sizes joined by commas.")
    ] = "1,8,32",
    duration: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time for each runtime at each batch size."),
    ] = 3.0,
    iterations: Annotated[
        int,
        typer.Option(
            min=0, metavar="BATCHES", help="Batches to time instead of --duration; 0 goes by time."
        ),
    ] = 0,
    streams: Annotated[
        int, typer.Option(min=1, metavar="BATCHES", help="Batches that are in flight at a time.")
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Threads of each runtime; 0 takes one for each core."
        ),
    ] = 0,
    device: Device = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Crops to run: a folder of them, or a video, is measured end to end as well; "
            "synthetic draws them.",
        ),
    ] = "synthetic",
    detections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="MOTChallenge text file with the boxes of the video; none by default."
            " A video needs it.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a labelled data set; without it neither mAP nor rank-1 is measured.",
        ),
    ] = None,
    dataset: Dataset = "auto",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Model whose vectors the cosines refer to; the first at fp32 by default.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Picture of images a second against p99 (.png, .svg or .pdf); none by default.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file that keeps the result, for a later --compare; none by default.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Earlier result that this one must not be slower than; none by default.",
        ),
    ] = None,
    fail_above: Annotated[
        str,
        typer.Option(
            metavar="PERCENT", help="Slowdown against --compare from which the exit code is 3."
        ),
    ] = "5%",
    json_output: JsonOutput = False,
) -> None:
    """Measure artefacts on every runtime that opens them, in turns.

    Examples:
        sa-deploy bench model.onnx model.int8.onnx --batch-sizes 1,16
        sa-deploy bench model.onnx --data-dir Market-1501 --out base.json
    """
    from sa_export.raw_files import contenders
    from sa_runtime.bench.compare import compare as compare_results
    from sa_runtime.bench.compare import parse_percent, require_no_slower
    from sa_runtime.bench.plan import BenchOptions
    from sa_runtime.bench.plot import check_plot_path, plot_result
    from sa_runtime.bench.result import BenchResult
    from sa_runtime.bench.run import run_bench
    from sa_runtime.system.files import refuse_inputs

    allowed = parse_percent(fail_above)
    base = None if compare is None else BenchResult.from_file(compare)
    if picture is not None:
        check_plot_path(picture)
    for name, target in (("out", out), ("picture", picture)):
        if target is not None:
            refuse_inputs(target, [*models, *([compare] if compare else [])], parameter=name)
    options = BenchOptions(
        runtimes=tuple(runtime or ()),
        batch_sizes=_sizes(batch_sizes),
        seconds=duration,
        iterations=iterations,
        streams=streams,
        threads=threads,
        device=device,
        source=source,
        detections=detections,
        dataset=dataset,
        data_dir=data_dir,
        reference=reference,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("bench", None, unit="measurement") as advance,
    ):
        result = run_bench(
            contenders(models, Path(folder)),
            options,
            on_progress=lambda done, total, text: advance(
                completed=done, total=total, description=text
            ),
        )
    comparison = None if base is None else compare_results(base, result, fail_above=allowed)
    if picture is not None:
        plot_result(result, picture)
        note(f"picture: {picture}")
    _notes(result)
    _show(result, comparison, out, json_output)
    if comparison is not None:
        for text in comparison.notes:
            note(text)
        require_no_slower(comparison)


def _show(
    result: BenchResult, comparison: Comparison | None, out: Path | None, json_output: bool
) -> None:
    from sa_runtime.system.files import atomic_path

    summary = result.to_dict()
    if comparison is not None:
        summary["comparison"] = comparison.to_dict()
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n")
        note(f"result: {out}")
    if json_output:
        print_json(summary)
        return
    _print(result)
    if comparison is not None:
        _print_comparison(comparison)


def _sizes(text: str) -> tuple[int, ...]:
    from sa_runtime.errors import InputError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as exc:
        raise InputError(f"--batch-sizes {text}: expected numbers with commas, as 1,8,32") from exc


def _notes(result: BenchResult) -> None:
    for contender in result.contenders:
        if contender.reason:
            note(f"auto took {contender.reason}")
    for name, why in result.skipped.items():
        note(f"left out: {name}: {why}")
    load = float(result.environment["load_before"])
    if load > 0.5 * int(result.environment["cores"]):
        note(f"the machine was busy before this run (load {load}): speeds may be too low")


def _print(result: BenchResult) -> None:
    limits = ", ".join(f"{name} {value:.2f}" for name, value in result.limits_tflops.items())
    environment = result.environment
    print_table(
        f"{environment['processor']}, {environment['cores']} cores; limits in TFLOPS: {limits}; "
        "times of a batch in ms",
        ("runtime", "batch", "images/s", "p50", "p90", "p99", "max", "% of limit"),
        [
            (
                contender.name,
                series.batch,
                f"{series.images_per_s:.1f}",
                *(f"{series.latency_ms[key]:.2f}" for key in ("p50", "p90", "p99", "max")),
                "-" if series.percent_of_limit is None else f"{series.percent_of_limit:.0f}",
            )
            for contender in result.contenders
            for series in contender.series
        ],
    )
    labelled = any(contender.retrieval for contender in result.contenders)
    columns = ["runtime", "GFLOP", "open s", "first crop s", "peak MB", "file MB", "least cosine"]
    print_table(
        f"Cosine to {result.reference}",
        [*columns, *(["mAP", "rank-1"] if labelled else [])],
        [_model_row(contender, labelled) for contender in result.contenders],
    )
    if any(contender.end_to_end for contender in result.contenders):
        _print_end_to_end(result)


def _model_row(contender: ContenderResult, labelled: bool) -> list[object]:
    row: list[object] = [
        contender.name,
        f"{contender.flops / 1e9:.2f}" if contender.flops else "-",
        f"{contender.open_s:.2f}",
        f"{contender.first_s:.3f}",
        f"{contender.peak_memory_mb:.0f}",
        f"{contender.size_mb:.1f}",
        "-" if contender.cosine is None else f"{contender.cosine['min']:.6f}",
    ]
    if labelled and contender.retrieval:
        row += [f"{100 * contender.retrieval[key]:.2f}" for key in ("mAP", "rank1")]
    return row


def _print_end_to_end(result: BenchResult) -> None:
    rows: list[tuple[object, ...]] = []
    for contender in result.contenders:
        whole = contender.end_to_end
        if whole is None:
            continue
        bare = next(s.images_per_s for s in contender.series if s.batch == whole["batch"])
        busy = [
            f"{100 * whole[f'{stage}_s'] / whole['wall_s']:.0f} %"
            for stage in ("decode", "crop", "inference", "write")
        ]
        speed = whole["rows_per_s"]
        rows.append((contender.name, f"{speed:.1f}", f"{100 * speed / bare:.0f} %", *busy))
    print_table(
        f"End to end on {result.options['source']}: share of the time that each stage is busy",
        ("runtime", "rows/s", "of bare", "decode", "crop", "inference", "write"),
        rows,
    )


def _print_comparison(comparison: Comparison) -> None:
    changes: list[tuple[Any, ...]] = [
        (
            change.name,
            change.batch if change.streams == 1 else f"{change.batch} x{change.streams}",
            f"{100 * change.change:+.1f} %",
            f"{100 * change.low:+.1f} to {100 * change.high:+.1f} %",
            change.verdict,
        )
        for change in comparison.changes
    ]
    print_table(
        "Against the base, relative to the machine's pace",
        ("runtime", "batch", "speed", "error bar", "verdict"),
        changes,
    )
