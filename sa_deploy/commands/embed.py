"""``sa-deploy embed``: images, folders and videos to a Parquet file of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sa_runtime.runners.base import Embeddings, Runner
    from sa_runtime.sources import Source, SourceCounts
    from sa_runtime.store import EmbeddingWriter, Row
    from sa_runtime.video.pipeline import PipelineResult


def embed(
    model: Annotated[Path, typer.Argument(help="An artefact of `sa-deploy export`.")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="Image files, folders of images, videos.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    detections: Annotated[
        list[Path] | None,
        typer.Option(help="MOTChallenge text file of boxes; once for each video, in order."),
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera, for every row.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, or the name of a runtime.")] = "auto",
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
    json_output: JsonFlag = False,
) -> None:
    """Embed people: whole images, or the boxes of videos.

    Boxes are clipped to their frame; those outside it or without size are left out and counted.
    """
    from sa_runtime.runners.table import open_runner
    from sa_runtime.sources import SourceCounts, find_sources
    from sa_runtime.store import EmbeddingWriter
    from sa_runtime.video.decode import quiet_opencv

    counts = SourceCounts()
    options = {} if embedding is None else {"embedding": embedding}
    with quiet_opencv():
        found = find_sources(sources, detections or [], strict=strict)
        with (
            open_runner(model, runtime, **options) as runner,
            EmbeddingWriter(out, runner.contract, dtype) as writer,
        ):
            result = _run(found, counts, runner, writer, camera, batch_size, max_delay_ms)
            name, contract = runner.name, runner.contract
    for text in counts.truncated_videos:
        note(f"truncated video: {text}")
    if not result.rows:
        note(f"no rows: {out} is empty, since no box could be used")
    summary: dict[str, Any] = {
        "model": str(model),
        "runtime": name,
        "embedding": contract.output.embedding,
        "space": contract.space,
        "dim": contract.output.dim,
        "dtype": dtype,
        "out": str(out),
        "size_bytes": out.stat().st_size,
        "rows": result.rows,
        "images": counts.images,
        "frames": counts.frames,
        "seconds": round(result.wall_s, 3),
        "rows_per_s": round(result.rows / result.wall_s, 1),
        "busy_s": {
            "decode": round(result.decode_s, 3),
            "crop": round(result.crop_s, 3),
            "inference": round(result.inference_s, 3),
            "write": round(result.write_s, 3),
        },
        "skipped": {
            "boxes_outside": result.outside,
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


def _run(
    sources: Sequence[Source],
    counts: SourceCounts,
    runner: Runner,
    writer: EmbeddingWriter,
    camera: str | None,
    batch_size: int,
    max_delay_ms: float | None,
) -> PipelineResult:
    from sa_runtime.errors import InputError
    from sa_runtime.sources import Video, source_items
    from sa_runtime.video.pipeline import run_pipeline

    with progress(f"embed on {runner.name}", sum(map(len, sources))) as advance:

        def sink(rows: Sequence[Row], vectors: Embeddings) -> None:
            writer.write(rows, vectors)
            advance(len(rows))

        items = source_items(
            sources, counts, camera=camera, skip=lambda error: note(f"skipped: {error}")
        )
        result = run_pipeline(items, runner, sink, batch_size=batch_size, max_delay_ms=max_delay_ms)
    if not counts.images and not any(isinstance(source, Video) for source in sources):
        raise InputError(
            f"none of {counts.unreadable_images} images could be decoded; no file written"
        )
    return result


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
        ("file", f"{summary['out']} ({summary['size_bytes'] / 2**20:.1f} MiB)"),
    ]
    print_table(f"{summary['model']} on {summary['runtime']}", ("embedded", ""), rows)
