"""``sa-deploy ablate``: recipes compared over several seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.output import JsonFlag, note, print_json, print_table, progress
from sa_runtime.errors import InputError
from sa_runtime.system.environment import cores

if TYPE_CHECKING:
    from sa_training.ablation import Ablation, Run
    from sa_training.ablation_table import Figure, Row
    from sa_training.loop import Progress

_RECIPE, _RUN = "What is learnt", "Where, how fast"


def ablate(
    recipes: Annotated[
        str, typer.Option(help="Recipes joined by commas; the first is what others are held to.")
    ],
    data_dir: Annotated[
        str, typer.Option(help="Folder of the data set; several, separated by commas.")
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "-d", "--dataset", help="As `sa-deploy train` takes it: market, synthetic, cifar100."
        ),
    ] = "market",
    seeds: Annotated[str, typer.Option(help="Of weights, order, augmentation.")] = "0,1,2",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,VALUE",
            rich_help_panel=_RECIPE,
            help="A row for each value, of every recipe; may be repeated for all combinations.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            rich_help_panel=_RECIPE,
            help="Any field of all recipes, or network.FIELD; may be repeated.",
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("-a", "--arch", rich_help_panel=_RECIPE, help="Backbone.")
    ] = None,
    height: Annotated[int | None, typer.Option(rich_help_panel=_RECIPE, help="Of input.")] = None,
    width: Annotated[int | None, typer.Option(rich_help_panel=_RECIPE, help="Of input.")] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(rich_help_panel=_RECIPE, help="Backbone's start: imagenet, none or a file."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, rich_help_panel=_RECIPE)] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("-b", "--batch-size", min=2, rich_help_panel=_RECIPE, help="Images a step."),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_RECIPE, help="Stop each run early.")
    ] = None,
    out: Annotated[
        Path, typer.Option(rich_help_panel=_RUN, help="Folder of all runs and of the table.")
    ] = Path("runs/ablation"),
    workers: Annotated[
        int | None,
        typer.Option(
            "-j", "--workers", min=0, rich_help_panel=_RUN, help="Processes that decode images."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(rich_help_panel=_RUN, help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(rich_help_panel=_RUN, help="auto, fp32, bf16 or fp16.")
    ] = "auto",
    json_output: JsonFlag = False,
) -> None:
    """Train recipes with several seeds each; print means and spreads.

    The same command again skips what is finished and resumes what was interrupted. Leaves a
    folder for each run, ablation.json, ablation.csv and ablation.png in the folder --out.
    """
    from sa_training.ablation import Ablation, variants
    from sa_training.ablation_table import CSV, JSON, PICTURE, draw, table, write_csv, write_json
    from sa_training.loop import TrainingOptions
    from sa_training.optimisation import resolve_device
    from sa_training.tasks import load_task

    changes: dict[str, Any] = {
        "network.backbone": arch,
        "network.height": height,
        "network.width": width,
        "pretrained": pretrained,
        "epochs": epochs,
        "batch": batch_size,
    }
    rows = variants(
        _listed("--recipes", recipes),
        vary={
            key: _listed(f"--vary {key}", values)
            for key, values in _pairs("--vary", vary, "network.attention=none,both").items()
        },
        changes={
            **{key: value for key, value in changes.items() if value is not None},
            **_pairs("--set", set_, "erase=0.5"),
        },
    )
    if workers is None:
        on_cpu = resolve_device(device).type == "cpu"
        workers = 0 if on_cpu else min(8, max(1, cores() - 1))
    options = TrainingOptions(
        out=out, workers=workers, device=device, precision=precision, max_steps=max_steps
    )
    ablation = Ablation(rows, _numbers(seeds), load_task(dataset, data_dir), options)
    ablation.check()
    runs = _train(ablation)
    result = table(runs)
    content = {
        "dataset": dataset,
        "recipes": [dataclasses.asdict(row) for row in result],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    write_json(out / JSON, content)
    write_csv(out / CSV, runs)
    draw(out / PICTURE, result, f"{dataset}: points are seeds, bars their means, dashed the first")
    if json_output:
        print_json({**content, "picture": str(out / PICTURE)})
        return
    _print(dataset, result)
    note(f"written: {out / JSON}, {out / CSV}, {out / PICTURE}")


def _train(ablation: Ablation) -> list[Run]:
    """All runs, with a bar for the one that is trained and a line for each that is done."""
    runs: list[Run] = []
    with progress("ablate", None) as advance:

        def on_step(name: str, seed: int, state: Progress) -> None:
            advance(
                completed=state.step,
                total=state.steps,
                description=f"run {len(runs) + 1}/{ablation.count}: {name}, seed {seed}, "
                f"loss {state.loss:.2f}",
            )

        for run, trained in ablation.run(on_step):
            runs.append(run)
            figures = ", ".join(f"{key} {100 * value:.1f}" for key, value in run.figures.items())
            how = f"{run.train_seconds:.0f} s" if trained else "finished before"
            note(f"{run.variant}, seed {run.seed}: {figures} % ({how})")
    return runs


def _print(dataset: str, rows: tuple[Row, ...]) -> None:
    names = list(rows[0].figures)[:2]
    print_table(
        f"{dataset}, %: mean ± standard deviation over {len(rows[0].seeds)} seeds; difference to "
        "the first row (its standard error)",
        ("recipe", *(column for name in names for column in (name, "difference")), "seconds a run"),
        [
            (
                row.variant,
                *(cell for name in names for cell in _cells(row.figures[name], index == 0)),
                f"{row.train_seconds:.0f}",
            )
            for index, row in enumerate(rows)
        ],
    )


def _cells(figure: Figure, first: bool) -> tuple[str, str]:
    spread = "" if figure.deviation is None else f" ± {100 * figure.deviation:.2f}"
    error = "" if figure.difference_error is None else f" ({100 * figure.difference_error:.2f})"
    difference = "" if first else f"{100 * figure.difference:+.2f}{error}"
    return f"{100 * figure.mean:.2f}{spread}", difference


def _listed(option: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise InputError(f"{option} {text!r}: expected values joined by commas, none of them empty")
    return found


def _numbers(text: str) -> list[int]:
    found = _listed("--seeds", text)
    if not all(part.isdecimal() for part in found) or len({int(part) for part in found}) != len(
        found
    ):
        raise InputError(f"--seeds {text!r}: expected different whole numbers, for example 0,1,2")
    return [int(part) for part in found]


def _pairs(option: str, texts: list[str] | None, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or key in found:
            raise InputError(
                f"{option} {text}: expected FIELD=VALUE, each field once, for example "
                f"{option} {example}"
            )
        found[key] = value
    return found
