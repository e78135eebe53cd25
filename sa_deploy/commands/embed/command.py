"""``sa-deploy embed``: images, folders and videos to Parquet files of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sa_runtime.pipeline.embed import EmbedProgress


def embed(
    model: Annotated[Path, typer.Argument(help="An artefact of `sa-deploy export`.")],
    sources: Annotated[
        list[str],
        typer.Argument(help="Image files, folders of images, videos.", show_default=False),
    ],
    out: Annotated[
        str, typer.Option("--out", help="FILE.parquet, or a folder for a file every so many rows.")
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
    from sa_runtime.pipeline.embed import embed as embed_sources

    named = {"embedding": embedding, "cache": cache, "device": device}
    options = {name: str(value) for name, value in named.items() if value is not None}
    if ray_workers is not None:
        from sa_deploy.commands.embed.on_ray import embed_on_workers
        from sa_runtime.pipeline.ray import Settings, tasks_of

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
        tasks = tasks_of(sources, detections or [], Path(out), resume=resume)
        embed_on_workers(tasks, settings, ray_workers, ray_address, json_output=json_output)
        return
    with progress("embed", None) as advance:
        result = embed_sources(
            sources,
            model,
            out,
            detections=detections or [],
            camera=camera,
            runtime=runtime,
            batch_size=batch_size,
            dtype=dtype,
            max_delay_ms=max_delay_ms,
            strict=strict,
            resume=resume,
            shard_rows=shard_rows,
            on_progress=_Bar(advance),
            on_skip=lambda error: note(f"skipped: {error}"),
            **options,
        )
    for text in result.counts.truncated_videos:
        note(f"truncated video: {text}")
    if result.resumed_rows:
        note(f"resumed: {result.resumed_rows} rows were in {out}")
    if not result.rows:
        note(f"no rows: {out} is empty, since no box could be used")
    if json_output:
        print_json(result.to_dict())
    else:
        _print(result.to_dict())


class _Bar:
    """Shows how far a run is; says once what ``auto`` took."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self._told = False

    def __call__(self, state: EmbedProgress) -> None:
        reason = getattr(state.runner, "reason", "")
        if reason and not self._told:
            note(f"auto took {reason}")
        self._told = True
        self._advance(
            completed=state.rows,
            total=state.rows_at_most,
            description=f"embed on {state.runner.name}",
        )


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
