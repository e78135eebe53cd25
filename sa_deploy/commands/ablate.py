"""``sa-deploy ablate``: recipes compared over several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.commands.train import options as opt
from sa_deploy.commands.train.given import budget, pairs, recipe_changes
from sa_deploy.options import DataDirs, JsonOutput, TrainingDataset
from sa_deploy.output import note, print_json, print_table, progress
from sa_runtime.errors import InputError

if TYPE_CHECKING:
    from sa_training.ablation import Ablation, Run
    from sa_training.ablation_compare import Compared
    from sa_training.ablation_table import Figure, Row
    from sa_training.loop import Progress


def ablate(
    recipes: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Recipes joined by commas; the others are compared with the first.",
        ),
    ],
    data_dir: DataDirs,
    dataset: TrainingDataset = "auto",
    seeds: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Seeds joined by commas, each of which every row is trained with: of the first "
            "weights, the order of the images and their augmentation.",
        ),
    ] = "0,1,2",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,VALUE",
            rich_help_panel=opt.RECIPE,
            help="Add a row for each value of a field, of every recipe; may be repeated for all "
            "combinations.",
        ),
    ] = None,
    fields: opt.Fields = None,
    arch: opt.Arch = None,
    height: opt.Height = None,
    width: opt.Width = None,
    pretrained: opt.Pretrained = None,
    epochs: opt.Epochs = None,
    time_budget: opt.TimeBudget = None,
    batch_size: opt.TrainingBatch = None,
    max_steps: opt.MaxSteps = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=opt.RUN,
            help="Folder that holds all runs and the table.",
        ),
    ] = Path("runs/ablation"),
    workers: opt.Workers = None,
    device: opt.TorchDevice = "auto",
    precision: opt.Precision = "auto",
    json_output: JsonOutput = False,
) -> None:
    """Train recipes with several seeds each; print means and spreads.

    The same command again skips what is finished and resumes what was interrupted. Leaves a
    folder for each run, ablation.json, ablation.csv and ablation.png in the folder --out.

    Examples:
        sa-deploy ablate --recipes sa,strong --data-dir Market-1501
        sa-deploy ablate --recipes tiny --vary erase=0,0.5 --data-dir Market-1501
    """
    given = locals()
    from sa_training.ablation import Ablation, variants
    from sa_training.ablation_compare import compare_runs, comparisons_dict
    from sa_training.ablation_table import (
        CSV,
        JSON,
        PICTURE,
        draw,
        table,
        to_dict,
        write_csv,
        write_json,
    )
    from sa_training.loop import TrainingOptions
    from sa_training.optimisation import decoding_processes
    from sa_training.tasks import load_task

    rows = variants(
        _listed("--recipes", recipes),
        vary={
            key: _listed(f"--vary {key}", values)
            for key, values in pairs("--vary", vary, "network.attention=none,both").items()
        },
        changes=recipe_changes(given, fields),
    )
    options = TrainingOptions(
        out=out,
        workers=decoding_processes(workers, device),
        device=device,
        precision=precision,
        max_steps=max_steps,
    )
    task = load_task(dataset, data_dir)
    ablation = Ablation(rows, _numbers(seeds), task, options)
    budget_s = budget(time_budget, epochs)
    ablation = Ablation(rows, _numbers(seeds), load_task(dataset, data_dir), options, budget_s)
    ablation.check()
    runs = _train(ablation)
    result = table(runs)
    compared = compare_runs(out, runs)
    content = {**to_dict(task.name, result, runs), "comparisons": comparisons_dict(compared)}
    write_json(out / JSON, content)
    write_csv(out / CSV, runs)
    draw(
        out / PICTURE, result, f"{task.name}: points are seeds, bars their means, dashed the first"
    )
    if json_output:
        print_json({**content, "picture": str(out / PICTURE)})
        return
    _print(task.name, result, compared)
    note(f"written: {out / JSON}, {out / CSV}, {out / PICTURE}")


def _train(ablation: Ablation) -> list[Run]:
    """All runs, with a bar for the one that is trained and a line for each that is done."""
    runs: list[Run] = []
    with progress("ablate", None, unit="step") as advance:

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


def _print(dataset: str, rows: tuple[Row, ...], compared: Compared) -> None:
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
    if compared:
        print_table(
            f"{dataset}: difference to {rows[0].variant}, points, 95 % interval over people and "
            "seeds",
            ("recipe", *(column for name in names for column in (name, "verdict"))),
            [
                (
                    variant,
                    *(
                        cell
                        for name in names
                        for cell in (
                            f"{100 * found[name].low:+.2f} to {100 * found[name].high:+.2f}",
                            found[name].verdict,
                        )
                    ),
                )
                for variant, found in compared.items()
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
