"""``sa-deploy embed --watch``: what arrives in a folder, until it is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sa_deploy.commands.embed.report import tell
from sa_deploy.output import note
from sa_runtime.detections.options import BoxOptions
from sa_runtime.errors import InputError, bad_value
from sa_runtime.pipeline.watch import watch
from sa_runtime.runners.opening import open_runner
from sa_runtime.sources.base import SourceOptions

if TYPE_CHECKING:
    from sa_runtime.pipeline.result import EmbedResult
    from sa_runtime.runners.base import Runner


def require_sources(sources: list[str] | None, watched: str | None) -> list[str]:
    """The sources that are given; none where a folder is watched.

    Raises:
        InputError: neither, or both.
    """
    if sources and watched is not None:
        raise bad_value("watch", watched, "does not go with SOURCES; leave one out")
    if not sources and watched is None:
        raise InputError("no SOURCES; give files, folders or addresses, or a folder to `watch`")
    return sources or []


def embed_watched(
    given: Mapping[str, Any],
    boxes: BoxOptions,
    runner: Runner | None,
    options: dict[str, Any],
    common: dict[str, Any],
) -> None:
    """Embed what is in a folder and what arrives, and say what was done when it is stopped.

    Args:
        given: the command's parameters by name.
        boxes: how detection files are read.
        runner: an open model; ``None`` to open one.
        options: of the runner that is opened.
        common: further options of :func:`sa_runtime.pipeline.embed.embed`.

    Raises:
        InputError: more than one place of detection files, a detector, or a share.
    """
    for name in [name for name in ("detector", "shard") if given[name]]:
        raise bad_value("watch", given["watch"], f"does not go with `{name}`; leave one out")
    places = given["detections"] or []
    if len(places) > 1:
        raise bad_value("detections", str(places[1]), "one folder holds the boxes of all videos")
    opening = SourceOptions(
        strict=given["strict"],
        camera=given["camera"],
        max_pixels=given["max_pixels"],
        boxes=boxes,
    )
    result: EmbedResult | None = None
    try:
        with ExitStack() as stack:
            opened = runner or stack.enter_context(
                open_runner(given["model"], given["runtime"], **options)
            )
            note(f"watches {given['watch']}; stop it with Ctrl-C or SIGTERM")
            for result in watch(
                given["watch"],
                opened,
                given["out"],
                detections=places[0] if places else None,
                options=opening,
                strict=opening.strict,
                camera=opening.camera,
                **common,
            ):
                note(f"{result.rows} rows of {result.sources} sources in {result.out}")
    finally:
        if result is not None:
            tell(result, json_output=given["json_output"])
