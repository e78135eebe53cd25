"""``sa-deploy data synth``: write a synthetic data set to train on, test with and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    identities: Annotated[int, typer.Option(help="People; half of them to train on.")] = 200,
    cameras: Annotated[int, typer.Option(help="Cameras; each sees everybody.")] = 6,
    images: Annotated[int, typer.Option(help="Images per person and camera.")] = 4,
    seed: Annotated[int, typer.Option(help="Equal seeds and sizes give equal bytes.")] = 0,
    videos: Annotated[int, typer.Option(help="Videos, of the first cameras.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of each video.")] = 8.0,
    people: Annotated[
        int | None,
        typer.Option(
            help="People in each video, the same in all; 6 where the test split has as many.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; one per core when not given.", show_default=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a synthetic data set that stands at OUT.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Draw a synthetic data set in the layout of Market-1501, and videos with ground truth."""
    from sa_runtime.datasets.synthetic import SyntheticConfig, work, write_synthetic

    # Distractors and junk keep their share of the gallery in a small data set.
    config = SyntheticConfig(
        seed=seed,
        identities=identities,
        cameras=cameras,
        images_per_camera=images,
        distractors=max(0, identities),
        junk=max(0, identities // 2),
        videos=videos,
        video_seconds=seconds,
        people_per_video=min(6, max(1, identities // 2)) if people is None else people,
    )
    with progress("drawing", work(config)) as advance:
        counts = write_synthetic(out, config, workers=workers, force=force, on_progress=advance)
    if json_:
        print_json({"out": str(out), "seed": seed, **counts})
        return
    print_table(f"Synthetic data set {out}", ["part", "count"], list(counts.items()))
    note(f"Check it with: sa-deploy data check {out}")
