"""``sa-deploy data synth``: write a synthetic data set to train on, test with and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sa_deploy.options import JsonOutput
from sa_deploy.output import note, print_json, print_table, progress


def synth(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder that the data set is written to.")
    ],
    identities: Annotated[
        int, typer.Option(metavar="PEOPLE", help="People; half of them are to train on.")
    ] = 200,
    cameras: Annotated[
        int, typer.Option(metavar="N", help="Cameras; each of them sees everybody.")
    ] = 6,
    images: Annotated[
        int, typer.Option(metavar="N", help="Images of each person by each camera.")
    ] = 4,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed; equal seeds and sizes give equal bytes.")
    ] = 0,
    videos: Annotated[
        int, typer.Option(metavar="N", help="Videos, each by one of the first cameras.")
    ] = 2,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Length of each video in seconds.")
    ] = 8.0,
    people: Annotated[
        int | None,
        typer.Option(
            metavar="PEOPLE",
            help="People in each video, the same in all; 6 by default, or as many as the test "
            "split has.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="PROCESSES", help="Processes that draw; one for each core by default."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace the synthetic data set that the folder OUT holds."),
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Draw a synthetic data set in the layout of Market-1501, and videos with ground truth.

    Examples:
        sa-deploy data synth world
        sa-deploy data synth world --identities 40 --cameras 3 --videos 1 --force
    """
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
    if json_output:
        print_json({"out": str(out), "seed": seed, **counts})
        return
    print_table(f"Synthetic data set {out}", ["part", "count"], list(counts.items()))
    note(f"Check it with: sa-deploy data check --data-dir {out}")
