"""``sa-deploy embed``: images, folders and videos to Parquet files of vectors."""

from __future__ import annotations

import dataclasses
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sa_runtime.arrays import Embeddings
    from sa_runtime.errors import InputError
    from sa_runtime.outputs.folder import ShardFolder
    from sa_runtime.outputs.parquet import Row
    from sa_runtime.pipeline.stages import PipelineResult, Sink
    from sa_runtime.runners.base import Runner
    from sa_runtime.sources.find import Source, SourceCounts


def embed(
    model: Annotated[Path, typer.Argument(help="An artefact of `sa-deploy export`.")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="Image files, folders of images, videos.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="FILE.parquet, or a folder for a file every so many rows.")
    ],
    detections: Annotated[
        list[Path] | None,
        typer.Option(help="MOTChallenge text file of boxes; once for each video, in order."),
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera, for every row.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, or the name of a runtime.")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for what a runtime builds: TensorRT engines, compiled models."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Of the runtime: cuda:1, tensorrt (inside ONNX Runtime), GPU (OpenVINO), ..."
        ),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Which of the artefact's embeddings; its first by default.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, help="Largest batch given to the runtime.")
    ] = 32,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Type of the stored vectors.")
    ] = "float32",
    max_delay_ms: Annotated[
        float | None,
        typer.Option(help="Run a batch that is not full once its oldest crop waited this long."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Make a damaged image in a folder an error.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the folder of a run that was stopped.")
    ] = False,
    shard_rows: Annotated[
        int, typer.Option(min=1, help="Rows after which a folder's next file begins.")
    ] = 50_000,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Embed so many sources at a time on Ray, each into a folder of its own in --out.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; else one on this machine.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Embed people: whole images, or the boxes of videos.

    Boxes are clipped to their frame; those outside it or without size are left out and counted.
    """
    from sa_runtime.errors import InputError
    from sa_runtime.outputs.folder import ShardFolder, plan_of
    from sa_runtime.outputs.parquet import EmbeddingWriter
    from sa_runtime.runners.table import open_runner
    from sa_runtime.sources.find import SourceCounts, find_sources
    from sa_runtime.sources.reader import quiet_opencv

    in_folder = out.is_dir() or not out.suffix
    if resume and not in_folder:
        raise InputError(f"--resume: {out} is one file; give --out a folder to go on with")
    options = {} if embedding is None else {"embedding": embedding}
    if cache is not None:
        options["cache"] = str(cache)
    if device is not None:
        options["device"] = device
    if ray_workers is not None:
        from sa_deploy.commands.embed.on_ray import embed_fleet
        from sa_runtime.pipeline.ray import Settings, tasks_of

        if not in_folder:
            raise InputError(f"--ray-workers: {out} is one file; give --out a folder")
        settings = Settings(
            model=model,
            runtime=runtime,
            options=options,
            camera=camera,
            strict=strict,
            batch_size=batch_size,
            dtype=dtype,
            shard_rows=shard_rows,
        )
        tasks = tasks_of(sources, detections or [], out, resume=resume)
        embed_fleet(tasks, settings, ray_workers, ray_address, json_output=json_output)
        return
    sizes: dict[str, Any] = {"batch_size": batch_size, "max_delay_ms": max_delay_ms}
    with quiet_opencv():
        found = find_sources(sources, detections or [], strict=strict)
        with open_runner(model, runtime, **options) as runner:
            name, contract = runner.name, runner.contract
            if runner.reason:
                note(f"auto took {runner.reason}")
            if in_folder:
                plan = plan_of(
                    found, contract, runtime=runner.label, dtype=dtype, camera=camera, strict=strict
                )
                folder = ShardFolder(out, plan, contract, dtype, resume=resume)
                counts, before = folder.counts, folder.manifest.rows
                result = _fill(folder, found, runner, camera, shard_rows, sizes)
                outside, shards = folder.outside, len(folder.manifest.shards)
            else:
                counts, before, shards = SourceCounts(), 0, 1
                with EmbeddingWriter(out, contract, dtype) as writer:
                    result = embed_sources(
                        found, counts, runner, writer.write, camera=camera, **sizes
                    )
                outside = result.outside
    for text in counts.truncated_videos:
        note(f"truncated video: {text}")
    if before:
        note(f"resumed: {before} rows were in {out}")
    if not before + result.rows:
        note(f"no rows: {out} is empty, since no box could be used")
    summary: dict[str, Any] = {
        "model": str(model),
        "runtime": name,
        "embedding": contract.output.embedding,
        "space": contract.space,
        "dim": contract.output.dim,
        "dtype": dtype,
        "out": str(out),
        "size_bytes": sum(
            file.stat().st_size for file in (out.glob("part-*.parquet") if in_folder else [out])
        ),
        "files": shards,
        "rows": before + result.rows,
        "resumed_rows": before,
        "images": counts.images,
        "frames": counts.frames,
        "seconds": round(result.wall_s, 3),
        "rows_per_s": round(result.rows / result.wall_s, 1) if result.wall_s else 0.0,
        "busy_s": {
            "decode": round(result.decode_s, 3),
            "crop": round(result.crop_s, 3),
            "inference": round(result.inference_s, 3),
            "write": round(result.write_s, 3),
        },
        "skipped": {
            "boxes_outside": outside,
            "boxes_without_size": counts.invalid_boxes,
            "boxes_beyond_end": counts.beyond_end,
            "unreadable_images": counts.unreadable_images,
        },
        "truncated_videos": counts.truncated_videos,
    }
    if json_output:
        print_json(summary)
    else:
        _print(summary)


def embed_sources(
    sources: Sequence[Source],
    counts: SourceCounts,
    runner: Runner,
    sink: Sink,
    *,
    camera: str | None = None,
    batch_size: int = 32,
    max_delay_ms: float | None = None,
) -> PipelineResult:
    """Embed sources into a sink, with progress and what is left out on stderr.

    Raises:
        InputError: there are only images, and none of them could be decoded.
    """
    from sa_runtime.pipeline.stages import run_pipeline
    from sa_runtime.sources.find import require_images, source_items

    with _progress(runner, sources) as (advance, skip):

        def told(rows: Sequence[Row], vectors: Embeddings) -> None:
            sink(rows, vectors)
            advance(len(rows))

        items = source_items(sources, counts, camera=camera, skip=skip)
        result = run_pipeline(items, runner, told, batch_size=batch_size, max_delay_ms=max_delay_ms)
    require_images(sources, counts)
    return result


def _fill(
    folder: ShardFolder,
    sources: Sequence[Source],
    runner: Runner,
    camera: str | None,
    shard_rows: int,
    sizes: dict[str, Any],
) -> PipelineResult:
    """:func:`embed_sources` into a folder, from where it stands."""
    from sa_runtime.sources.find import require_images, source_items

    position = dataclasses.replace(folder.manifest.position)
    with (
        _progress(runner, sources) as (advance, skip),
        closing(
            source_items(sources, folder.counts, camera=camera, skip=skip, position=position)
        ) as items,
    ):
        advance(folder.manifest.rows)
        result = folder.fill(
            items,
            position,
            runner,
            lambda rows, _: advance(len(rows)),
            shard_rows=shard_rows,
            **sizes,
        )
    require_images(sources, folder.counts)
    return result


@contextmanager
def _progress(
    runner: Runner, sources: Sequence[Source]
) -> Iterator[tuple[Callable[..., None], Callable[[InputError], None]]]:
    """Progress over the rows, and what notes an image that is left out."""
    with progress(f"embed on {runner.name}", sum(map(len, sources))) as advance:
        yield advance, lambda error: note(f"skipped: {error}")


def _print(summary: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("rows", summary["rows"]),
        ("images", summary["images"]),
        ("video frames", summary["frames"]),
        ("seconds", summary["seconds"]),
        ("rows/s", summary["rows_per_s"]),
        *((f"busy seconds: {stage}", seconds) for stage, seconds in summary["busy_s"].items()),
        *((f"skipped: {what.replace('_', ' ')}", n) for what, n in summary["skipped"].items()),
        ("embedding", f"{summary['embedding']}, {summary['dim']} x {summary['dtype']}"),
        ("feature space", summary["space"]),
        (
            "file" if summary["files"] == 1 else f"{summary['files']} files in",
            f"{summary['out']} ({summary['size_bytes'] / 2**20:.1f} MiB)",
        ),
    ]
    print_table(f"{summary['model']} on {summary['runtime']}", ("embedded", ""), rows)
