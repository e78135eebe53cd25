"""What ``sa-deploy embed`` tells of a run: while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sa_deploy.output import note, print_json, print_table

if TYPE_CHECKING:
    from sa_runtime.pipeline.result import EmbedProgress, EmbedResult


class Bar:
    """Shows how far a run is; says once what ``auto`` took."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self._told = False

    def __call__(self, state: EmbedProgress) -> None:
        """Take the state of the run."""
        reason = getattr(state.runner, "reason", "")
        if reason and not self._told:
            note(f"auto took {reason}")
        self._told = True
        self._advance(completed=state.rows, total=state.rows_at_most, description=_line(state))


def tell(result: EmbedResult, *, json_output: bool) -> None:
    """Say what is worth a note on stderr, and the result on stdout."""
    for text in result.counts.truncated_videos:
        note(f"truncated video: {text}")
    if result.counts.other_files:
        note(f"{result.counts.other_files} files of other kinds passed over")
    if result.doubt:
        note(f"warning: {result.doubt}")
    if result.resumed_rows:
        note(f"resumed: {result.resumed_rows} rows were in {result.out}")
    if not result.rows:
        note(f"no rows: {result.out} is empty, since no box could be used")
    if json_output:
        print_json(result.to_dict())
    else:
        _print(result.to_dict())


def _line(state: EmbedProgress) -> str:
    """Files, frames, crops a second, and what was left out."""
    parts = [f"embed on {state.runner.name}", f"file {state.source} of {state.sources}"]
    if state.pictures:
        parts.append(f"{state.pictures} frames")
    if state.rows_per_s:
        parts.append(f"{state.rows_per_s:.0f} crops/s")
    if state.left_out:
        parts.append(f"{state.left_out} left out")
    return ", ".join(parts)


def _print(summary: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("rows", summary["rows"]),
        ("sources", summary["sources"]),
        ("images", summary["images"]),
        ("video frames", summary["frames"]),
        ("seconds", summary["seconds"]),
        ("rows/s", summary["rows_per_s"]),
        *((f"busy seconds: {stage}", seconds) for stage, seconds in summary["busy_s"].items()),
        ("boxes clipped", summary["boxes_clipped"]),
        *((f"skipped: {what.replace('_', ' ')}", n) for what, n in summary["skipped"].items()),
        ("embedding", f"{summary['embedding']}, {summary['dim']} x {summary['dtype']}"),
        ("feature space", summary["space"]),
        (
            "file" if summary["files"] == 1 else f"{summary['files']} files in",
            f"{', '.join(summary['outs'])} ({summary['size_bytes'] / 2**20:.1f} MiB)",
        ),
        *([("crops in", summary["crops"])] if summary["crops"] else []),
        *([("tracks in", summary["tracks"])] if summary["tracks"] else []),
    ]
    print_table(f"{summary['model']} on {summary['runtime']}", ("embedded", ""), rows)
