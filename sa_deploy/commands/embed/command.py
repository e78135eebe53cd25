"""``sa-deploy embed``: images, folders and videos to Parquet files of vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from sa_deploy.commands.embed import boxes, detecting
from sa_deploy.commands.embed.on_server import opened, require_workers
from sa_deploy.commands.embed.report import Bar, tell
from sa_deploy.options import (
    BatchSize,
    Cache,
    Device,
    Embedding,
    JsonOutput,
    Model,
    RayAddress,
    Runtime,
    Threads,
    runner_options,
)
from sa_deploy.output import note, progress
from sa_deploy.settings import Config, SaveConfig, settings_of, write_settings


def embed(
    context: typer.Context,
    model: Model,
    out: Annotated[
        list[str],
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="FILE.parquet, .npz or .csv (no vectors) that is written at the end; a folder, "
            "which gets a file for every --shard-rows rows; or a database, NAME.lancedb or "
            "NAME.qdrant. Give it again for several at once.",
        ),
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCES",
            help="Image files, folders or tar files of images, and videos; patterns, text files "
            "that list them, and - for a list on standard input.",
            show_default=False,
        ),
    ] = None,
    detections: boxes.Detections = None,
    detections_format: boxes.DetectionsFormat = None,
    columns: boxes.Columns = None,
    first_frame: boxes.FirstFrame = 1,
    normalized: boxes.Normalized = False,
    coco_images: boxes.CocoImages = None,
    min_confidence: boxes.MinConfidence = None,
    classes: boxes.Classes = None,
    min_size: boxes.MinSize = None,
    pad: boxes.Pad = 0.0,
    every: boxes.Every = None,
    fps: boxes.Fps = None,
    per_track: boxes.PerTrack = None,
    detector: detecting.DetectorFile = None,
    live: detecting.Live = "latest",
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the camera, which stands in every row; none by default."
        ),
    ] = None,
    camera_from: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Tell the camera from the path of each source: name (without suffix), folder, "
            "or a regular expression, whose first group is the camera; none by default.",
        ),
    ] = None,
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    embedding: Embedding = None,
    batch_size: BatchSize = 32,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Type of the numbers that are stored.")
    ] = "float32",
    threads: Threads = None,
    max_delay_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MILLISECONDS",
            help="Run a batch that is not full once its oldest crop has waited this long; by "
            "default it waits until it is full.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with an error at a damaged image of a folder."),
    ] = False,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, metavar="PIXELS", help="Leave out images of more pixels, undecoded."),
    ] = 100_000_000,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the folder that a stopped run has left."),
    ] = False,
    shard_rows: Annotated[
        int,
        typer.Option(min=1, metavar="ROWS", help="Rows of each file in a folder, the last aside."),
    ] = 50_000,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Divide the files of a folder by some of source, camera and day, joined by "
            "commas; not at all by default.",
        ),
    ] = None,
    crops: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for every person as a JPEG file, without it none; its name is a column.",
        ),
    ] = None,
    tracks: boxes.TrackFile = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Embed the I-th of N shares of the sources, such as 1/4: for several machines "
            "that are given the same sources, each with an --out of its own; all by default.",
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Embed what is in a folder and what arrives there, each file once, until it is "
            "stopped; in place of SOURCES, which are embedded once by default.",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Embed this many sources at a time on Ray, each into a folder of its own below "
            "--out; without it, one after another in this process.",
        ),
    ] = None,
    ray_address: RayAddress = None,
    split_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="FRAMES",
            help="Cut videos into ranges of this many frames, which the --ray-workers share; by "
            "default each takes whole sources.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a service (`sa-deploy serve`) that runs the model; MODEL is the name "
            "that it has there. This process runs it by default.",
        ),
    ] = None,
    server_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long a --server that is away or busy is asked again; a minute by default.",
        ),
    ] = None,
    config: Config = None,
    save_config: SaveConfig = None,
    json_output: JsonOutput = False,
) -> None:
    """Embed people: whole images, or the boxes of videos.

    Boxes are clipped to their frame; those outside it or without size are left out and counted.

    Examples:
        sa-deploy embed model.onnx crops --out people.parquet
        sa-deploy embed model.onnx c1.mp4 --detections c1.txt --out c1.parquet
    """
    given = locals()  # before any name but those of the options
    chosen = boxes.box_options(given)
    from sa_deploy.commands.embed.on_watch import embed_watched, require_sources
    from sa_runtime.pipeline.embed import embed as embed_sources
    from sa_runtime.sources.listing import is_list, listed

    options = runner_options(cache=cache, device=device, embedding=embedding, threads=threads)
    sources = given["sources"] = require_sources(sources, watch)
    if any(map(is_list, sources)):  # opened here: a camera that one names ends by signals
        sources = given["sources"] = listed(sources)
    noted = settings_of(context)
    if save_config is not None:
        write_settings(save_config, noted)
    if ray_workers is not None:
        from sa_deploy.commands.embed.on_ray import embed_as_given

        embed_as_given(given, options, chosen, noted)
        return
    require_workers(split_frames)
    with (
        detecting.detection(given, chosen) as found,
        opened(model, server, server_timeout, runtime, options) as runner,
        progress("embed", None) as advance,
    ):
        common: dict[str, Any] = {
            "camera_from": camera_from,
            "batch_size": batch_size,
            "dtype": dtype,
            "max_delay_ms": max_delay_ms,
            "shard_rows": shard_rows,
            "partition": partition.split(",") if partition else (),
            "crops": crops,
            "tracks": tracks,
            "settings": noted,
            "on_progress": Bar(advance),
            "on_skip": lambda error: note(f"skipped: {error}"),
        }
        if watch is not None:
            embed_watched(given, chosen, runner, options, common)
            return
        result = embed_sources(
            sources,
            runner or model,
            out,
            detections=detections or [],
            boxes=chosen,
            **found,
            camera=camera,
            shard=shard,
            runtime="auto" if runner else runtime,
            strict=strict,
            max_pixels=max_pixels,
            resume=resume,
            **common,
            **options,
        )
        tell(result, json_output=json_output)
