"""The main job in one call: pictures with people in them to rows of vectors."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sa_runtime.artefact.formats import files_of
from sa_runtime.detections.base import Detections
from sa_runtime.detections.options import BoxOptions
from sa_runtime.detectors.base import Detector
from sa_runtime.embedder import Embedder
from sa_runtime.errors import InputError, bad_value
from sa_runtime.image_files import MAX_PIXELS
from sa_runtime.items import Item
from sa_runtime.outputs.base import PART_ROWS, OutputOptions, StoredType
from sa_runtime.outputs.crops import CropFolder
from sa_runtime.outputs.manifest import plan_of
from sa_runtime.outputs.several import open_outputs
from sa_runtime.outputs.sources import order_of
from sa_runtime.pipeline.choice import (
    Gone,
    Share,
    camera_rule,
    name_of,
    require_tracks,
    with_camera,
)
from sa_runtime.pipeline.parts import embed_parts
from sa_runtime.pipeline.report import Report
from sa_runtime.pipeline.result import EmbedProgress, EmbedResult
from sa_runtime.pipeline.targets import Targets, place_of
from sa_runtime.runners.base import Runner
from sa_runtime.runners.opening import open_runner
from sa_runtime.runners.table import runtimes_for
from sa_runtime.sources.base import ItemStream, OnSkip, Source, SourceOptions, ignore
from sa_runtime.sources.listing import listed
from sa_runtime.sources.live import LiveMode, is_live, live_delay_ms
from sa_runtime.sources.pairing import Boxes, Location
from sa_runtime.sources.reader import quiet_opencv
from sa_runtime.sources.remote import brought, expanded
from sa_runtime.sources.table import find_sources
from sa_runtime.system.remote import address_of, fetched_model, workspace


def embed(
    sources: Location | Source | Sequence[Location | Source],
    model: Location | Embedder | Runner,
    out: Location | Sequence[Location],
    *,
    detections: Boxes | Sequence[Boxes] = (),
    boxes: BoxOptions | None = None,
    detector: Detector | None = None,
    live: LiveMode = "latest",
    stop: threading.Event | None = None,
    camera: str | None = None,
    camera_from: str | None = None,
    shard: str | None = None,
    runtime: str = "auto",
    batch_size: int = 32,
    dtype: StoredType = "float32",
    max_delay_ms: float | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    resume: bool = False,
    allow_empty: bool = False,
    shard_rows: int = PART_ROWS,
    partition: Sequence[str] = (),
    crops: Location | None = None,
    tracks: Location | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[EmbedProgress], None] = lambda progress: None,
    on_skip: OnSkip = ignore,
    **options: Any,
) -> EmbedResult:
    """Embed images, folders of them and the boxes of videos into files and folders.

    ::

        embed("c1.mp4", "model.onnx", "people.parquet", detections="c1.txt")

    Args:
        sources: image files, folders, tar files, videos, or sources of your own, in the order of
            the rows; patterns, text files that list them, and ``-`` for a list on standard input.
        model: an artefact, or one that is open already and stays so.
        out: ``NAME.parquet``, ``.npz``, ``.csv`` (without vectors), or a folder, in which a
            stopped run can go on and later ones add new sources; several of them get the same rows.
        detections: the boxes of each video, in order: a file or what one holds; or a folder of
            files with the names of the videos, or one file that names the video of each box.
        boxes: how detection files are read, and which boxes are used.
        detector: finds the people of videos without detections and of live sources: takes a frame,
            (H, W, 3) uint8 BGR, returns (N, 4 to 6) edges, confidence and class, or what has
            ``xyxy``; :class:`sa_runtime.detectors.onnx.OnnxDetector` runs ONNX files.
        live: of a live source ``latest`` leaves out the frames that come while an older one is
            worked on, ``all`` lets them wait.
        stop: ends live sources; what they gave until then is embedded and written.
        camera: name that goes into every row.
        camera_from: how it is told from each source instead: ``name``, ``folder`` or a regular
            expression, see :func:`sa_runtime.pipeline.choice.camera_rule`.
        shard: ``i/n`` takes the i-th of n shares of the sources, whichever come later.
        runtime: a name of :data:`sa_runtime.runners.table.RUNNERS`, or ``auto``.
        batch_size: largest batch given to the runtime.
        dtype: of the stored vectors.
        max_delay_ms: see :func:`sa_runtime.pipeline.stages.run_pipeline`.
        strict: make a damaged image in a folder an error.
        max_pixels: of the largest image that is decoded; larger ones count as damaged.
        resume: go on with the folder of a run that was stopped.
        allow_empty: let images of which none can be decoded be no error.
        shard_rows: rows after which a folder's next file begins.
        partition: ``source``, ``camera`` and ``day``: what the files of a folder are divided by.
        crops: folder that every person goes into as a JPEG file, named in the column ``crop``.
        tracks: ``NAME.parquet``, ``.npz`` or ``.csv`` that gets one row and one vector a track, see
            :mod:`sa_runtime.outputs.tracks`.
        settings: noted in the manifest of a folder, as what made it.
        on_progress: called once the model is open, and after every batch.
        on_skip: is given what is wrong with an image that is left out.
        options: of the runner, for example ``device`` and ``cache``.

    Raises:
        InputError: what cannot be embedded, or not be written to; nothing is changed then.
        SaDeployError: whatever else a user can fix.
    """
    given = listed(expanded(_several(sources, str, os.PathLike, Source)))
    held = _several(detections, str, os.PathLike, Detections)
    targets = Targets.of(out, crops, tracks)
    targets.check(_files_read(given, held, model), resume=resume, partition=partition)
    if isinstance(model, (str, os.PathLike)) and address_of(model) is None:
        runtimes_for(Path(model))  # a file that is no model is told before sources are read
    if camera is not None and camera_from is not None:
        raise bad_value("camera_from", camera_from, "does not go with `camera`; leave one out")
    rule = None if camera_from is None else camera_rule(camera_from)
    share = None if shard is None else Share(shard)
    boxes = boxes or BoxOptions()
    if targets.tracks is not None:
        boxes = dataclasses.replace(boxes, rated=True)
    looked_for = SourceOptions(
        strict=strict,
        camera=camera,
        max_pixels=max_pixels,
        boxes=boxes,
        detector=detector,
        live=live,
        stop=stop or threading.Event(),
    )
    with ExitStack() as stack:
        stack.enter_context(quiet_opencv())
        model_here, held = stack.enter_context(_here(model, held))
        found = find_sources(given, held, looked_for)
        if targets.tracks is not None:
            require_tracks(found, targets.tracks)
        max_delay_ms = live_delay_ms(found, max_delay_ms)
        if share is not None:
            found = [source for source in found if share.has(name_of(source))]
        runner = stack.enter_context(_opened(model_here, runtime, options))
        identities = [source.identity() for source in found]
        plan = plan_of(
            runner.contract,
            runtime=getattr(runner, "label", runner.name),
            device=getattr(runner, "device_kind", ""),
            sources=identities,
            dtype=dtype,
            camera=camera,
            strict=strict,
            **_chosen(crops=True if targets.crops else None, camera_from=camera_from, shard=shard),
        )
        how = OutputOptions(
            dtype=dtype,
            plan=plan,
            resume=resume,
            part_rows=shard_rows,
            partition=tuple(partition),
            settings=dict(settings or {}),
        )
        output = open_outputs(targets.outs, runner.contract, how, tracks=targets.tracks)
        stack.callback(output.close)
        if output.plan is not None:
            order = order_of(output.plan["sources"], identities)
            found = [Gone() if index is None else found[index] for index in order]
        before = output.progress
        items = stack.enter_context(
            ItemStream(found, position=before.position, counts=before.counts, on_skip=on_skip)
        )
        changes: list[Callable[[Item], Item]] = []
        if rule is not None:
            changes.append(partial(with_camera, rule=rule))
        if targets.crops is not None:
            folder = CropFolder(Path(targets.crops), before.rows)
            changes.append(stack.enter_context(folder).save)
        timing = embed_parts(
            output,
            items,
            runner,
            Report(runner, found, items, before.rows, on_progress),
            changes,
            batch_size=batch_size,
            max_delay_ms=max_delay_ms,
            allow_empty=allow_empty,
        )
        return EmbedResult(
            model=address_of(model) or str(getattr(runner, "path", runner.name)),
            runtime=runner.name,
            contract=runner.contract,
            dtype=dtype,
            out=place_of(targets.outs[0]),
            outs=tuple(map(place_of, targets.outs)),
            crops=None if targets.crops is None else Path(targets.crops),
            tracks=None if targets.tracks is None else place_of(targets.tracks),
            size_bytes=output.size_bytes(),
            files=tuple(output.files()),
            rows=output.progress.rows,
            resumed_rows=before.rows,
            sources=len(found),
            counts=output.progress.counts,
            timing=timing,
        )


def _several(given: Any, *single: type) -> Sequence[Any]:
    """What was given, in a list where it is one thing of these types."""
    return [given] if isinstance(given, single) else given


def _files_read(
    sources: Sequence[Location | Source],
    detections: Sequence[Boxes],
    model: Location | Embedder | Runner,
) -> list[Location]:
    """The files and folders that a run reads, the model's among them."""
    places = [place for place in (*sources, *detections) if isinstance(place, (str, os.PathLike))]
    files: list[Location] = [place for place in places if not is_live(os.fspath(place))]
    if isinstance(model, (str, os.PathLike)):
        files += files_of(Path(model))
    return files


@contextmanager
def _here(
    model: Location | Embedder | Runner, detections: Sequence[Boxes]
) -> Iterator[tuple[Location | Embedder | Runner, Sequence[Boxes]]]:
    """Model and detection files, those of stores as copies that are removed at the end."""
    address = address_of(model)
    if address is None and not any(map(address_of, detections)):
        yield model, detections
        return
    with workspace() as folder:
        held = brought(detections, folder)
        yield model if address is None else fetched_model(address, folder), held


@contextmanager
def _opened(
    model: Location | Embedder | Runner, runtime: str, options: dict[str, Any]
) -> Iterator[Runner]:
    if isinstance(model, (str, os.PathLike)):
        with open_runner(Path(model), runtime, **options) as runner:
            yield runner
        return
    if options or runtime != "auto":
        named = ", ".join(options) or "runtime"
        raise InputError(f"{named}: the model is open already; open it with them")
    yield model.runner if isinstance(model, Embedder) else model


def _chosen(**options: str | bool | None) -> dict[str, str | bool]:
    """Those that are given: plans of older versions do not have them."""
    return {name: value for name, value in options.items() if value is not None}
