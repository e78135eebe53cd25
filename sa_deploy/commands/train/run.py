"""What ``sa-deploy train`` does once its options are read: plan, run or evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sa_deploy.output import command_line, note, print_json, print_table, progress

if TYPE_CHECKING:
    from sa_training.checkpoints import Checkpoint
    from sa_training.loop import Progress, TrainingOptions, TrainingSet
    from sa_training.network import SANetwork
    from sa_training.pace import Pace
    from sa_training.recipes import Recipe
    from sa_training.result import TrainingResult
    from sa_training.tasks import Task
    from sa_training.teacher import Teacher


def is_first() -> bool:
    """Whether this process is the only one, or the one of several that is_main."""
    from sa_training.distributed import Processes

    return Processes.from_environment().first


def default_recipe(
    task: Task,
    budget_s: float | None,
    device: str,
    pretrained: str | None,
    resume: Path | None,
) -> str:
    """The recipe of a command line that names none.

    A budget on a processor is best spent from ImageNet weights at small inputs; without such
    weights at hand, on a smaller network from nothing.
    """
    from sa_runtime.errors import CheckpointError
    from sa_training.checkpoints import load_checkpoint
    from sa_training.optimisation import resolve_device
    from sa_training.pretrained import imagenet_weights
    from sa_training.recipes import hour
    from sa_training.tasks import Reidentification

    people = isinstance(task, Reidentification)
    if budget_s is None or not people or resolve_device(device).type != "cpu":
        return "sa"
    if resume is not None:
        then = load_checkpoint(resume).recipe.name
        return then if then in ("hour", "cpu") else "sa"
    if pretrained is None:
        try:
            imagenet_weights(hour().network.backbone)
        except CheckpointError as missing:
            if is_first():
                note(f"{missing}\nWithout them the recipe is cpu, which starts from nothing.")
            return "cpu"
    if is_first():
        note("--recipe hour, which is made for a --time-budget on a processor (see --recipe)")
    return "hour"


def plan(
    task: Task,
    recipe: Recipe,
    options: TrainingOptions,
    json_output: bool,
    time_budget: str | None = None,
) -> None:
    """Say what a training would be."""
    import dataclasses

    from sa_training.plan import plan as work_out

    found = work_out(recipe, task.training(recipe, keep=False), options)
    fields = recipe.to_dict()
    network = {f"network.{key}": value for key, value in fields.pop("network").items()}
    network["network.classes"] = found.classes
    if time_budget is not None:
        note(f"--time-budget {time_budget}: sets the epochs once a run has timed its steps")
    if json_output:
        print_json(
            {
                "recipe": {**fields, **network},
                "data": dict(task.counts()),
                **dataclasses.asdict(found),
            }
        )
        return
    recipe_rows = [*fields.items(), *network.items()]
    print_table("Recipe", ("field", "value"), recipe_rows, figures=False)
    print_table("Data", ("split", "holds"), task.counts().items(), figures=False)
    rows = [
        ("parameters", f"{found.parameters:,}"),
        ("GFLOPs an image, forward", f"{found.gflops:.2f}"),
        ("steps an epoch", found.epoch_steps),
        ("steps", found.steps),
    ]
    print_table("Training", ("what", "value"), rows)


def as_long_as(recipe: Recipe, resume: Path, *, step_size_given: bool) -> Recipe | None:
    """The recipe with the epochs and schedule of the run to go on with.

    ``None`` where the file does not say: a checkpoint of the authors, or one of another recipe.
    """
    import dataclasses

    from sa_training.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(resume, recipe)
    then = checkpoint.recipe
    if not checkpoint.training or then.name != recipe.name:
        return None
    step_size = recipe.step_size if step_size_given else then.step_size
    if then.epochs != recipe.epochs:
        note(f"{resume}: its run is of {_epochs(then.epochs)}, so this one is (see --epochs)")
    return dataclasses.replace(recipe, epochs=then.epochs, step_size=step_size)


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def _within(
    recipe: Recipe,
    training: TrainingSet,
    options: TrainingOptions,
    budget_s: float,
    teacher: Teacher | None,
    is_main: bool,
) -> Pace:
    """The pace that a budget gives a run; says how many epochs are planned."""
    from sa_training.pace import MOST
    from sa_training.time_budget import pace_from_trial

    pace, fitting = pace_from_trial(recipe, training, options, budget_s, teacher=teacher)
    (plan,) = pace.plans
    epochs = plan.steps / pace.epoch_steps
    why = f"{fitting:.1f} would fit"
    if fitting * pace.epoch_steps < 1:
        why += ", a step is the least, so that the budget will not hold"
    elif epochs == MOST * recipe.epochs:
        why += f", {MOST} times the recipe's {recipe.epochs} is the most"
    if is_main:
        note(
            f"--time-budget: {epochs:.3g} epochs of {pace.epoch_steps} steps at "
            f"{1000 * plan.step_s:.0f} ms ({why}); looked at again while it runs"
        )
    return pace


def run(
    task: Task,
    recipe: Recipe,
    options: TrainingOptions,
    resume: Path | None,
    budget_s: float | None,
    json_output: bool,
    teacher_path: Path | None = None,
    *,
    begun: bool = False,
) -> None:
    """Train, draw the curves, test the best and the last network.

    Args:
        task: what is trained for.
        recipe: how.
        options: where and how fast.
        resume: the checkpoint to go on from.
        budget_s: seconds of the run; where ``begun``, instead of those it was begun with.
        json_output: print JSON.
        teacher_path: a checkpoint to learn from.
        begun: whether ``resume`` is of this run.
    """
    from sa_training.checkpoints import BEST, load_checkpoint
    from sa_training.distributed import Processes, greatest, joined
    from sa_training.loop import fit
    from sa_training.optimisation import resolve_device
    from sa_training.pace import Pace
    from sa_training.result import TrainingResult
    from sa_training.watch import draw_curves

    processes = Processes.from_environment()
    is_main = processes.first
    last: list[Progress] = []
    training = task.training(recipe, keep=options.workers == 0)
    with joined(processes, resolve_device(options.device, processes.local)):
        teacher = _teacher(teacher_path, training, options)
        pace = None
        if budget_s is not None:
            pace = (
                Pace(budget_s, agree=greatest)
                if begun
                else _within(recipe, training, options, budget_s, teacher, is_main)
            )
        with _bar(f"train {recipe.name}", None, "step", is_main) as advance:
            checkpoint = fit(
                recipe,
                training,
                options,
                resume=resume,
                on_step=_watcher(advance, last),
                evaluate=task.score,
                pace=pace,
                teacher=teacher,
            )
    if not is_main:
        return
    if last:
        note(f"curves: {draw_curves(options.out)}")
    found: dict[str, Mapping[str, float]] = {}
    if options.max_steps is None:
        best = options.out / BEST
        tested = {"last": checkpoint, **({"best": load_checkpoint(best)} if best.is_file() else {})}
        device = resolve_device(options.device)
        for name, one in tested.items():
            with progress(f"test the {name} network", None):
                found[f"{name}, epoch {one.epoch}"] = task.test(one.network.to(device))
    result = TrainingResult.of(
        checkpoint, last[0] if last else None, found, steps=checkpoint.training["step"]
    )
    if json_output:
        print_json(result.to_dict())
        return
    if time := result.time:
        said = ", ".join(f"{plan['steps']} at step {plan['step']}" for plan in time["plans"])
        note(f"--time-budget: {time['elapsed_s']:.0f} of {time['budget_s']:.0f} s; planned: {said}")
    show_result("Training", result)
    words = ("export", "--onnx", checkpoint.path, "--out", options.out)
    note(f"next: {command_line(*words)}")


def _teacher(path: Path | None, training: TrainingSet, options: TrainingOptions) -> Teacher | None:
    """The vectors of ``--teacher``, with a bar."""
    from sa_runtime.errors import InputError
    from sa_training.distributed import Processes
    from sa_training.optimisation import autocast_type, resolve_device
    from sa_training.teacher import teacher_of

    if path is None:
        return None
    if Processes.from_environment().count > 1:
        raise InputError("--teacher: teaches one process; start it without torchrun")
    device = resolve_device(options.device)
    compute = autocast_type(options.precision, device)
    with progress("embed with the teacher", len(training.labels), unit="image") as advance:
        return teacher_of(path, training, device, compute=compute, on_progress=advance)


@contextmanager
def _bar(
    description: str, total: int | None, unit: str, is_main: bool
) -> Iterator[Callable[..., None]]:
    """A progress bar, in one of several processes only."""
    if is_main:
        with progress(description, total, unit=unit) as advance:
            yield advance
    else:
        yield lambda *_, **__: None


def _watcher(advance: Callable[..., None], last: list[Progress]) -> Callable[[Progress], None]:
    """Shows the losses by kind of head while the bar counts steps and time left."""

    def on_step(state: Progress) -> None:
        last[:] = [state]
        kinds: dict[str, float] = {}
        for name, loss in state.losses.items():
            kind = name.rstrip("0123456789")
            kinds[kind] = kinds.get(kind, 0.0) + loss
        heads = " ".join(f"{kind} {loss:.2f}" for kind, loss in kinds.items())
        advance(
            total=state.steps,
            completed=state.step,
            description=(
                f"epoch {state.epoch}/{state.epochs} loss {state.loss:.2f} ({heads}) "
                f"accuracy {100 * state.accuracy:.0f} % {state.images_per_s:.0f} images/s"
            ),
        )

    return on_step


def show_result(title: str, result: TrainingResult) -> None:
    """What was trained, and its figures, for people."""
    print_table(title, ("what", "value"), result.rows(), figures=False)
    if result.test:
        _print_figures(result.test)


def _print_figures(found: Mapping[str, Mapping[str, float]]) -> None:
    columns = ("network", *next(iter(found.values())))
    rows = [
        (name, *(f"{100 * value:.1f}" for value in figures.values()))
        for name, figures in found.items()
    ]
    print_table("Test, %", columns, rows)


def evaluate(
    task: Task,
    path: Path | None,
    recipe: Recipe | None,
    size: tuple[int | None, int | None],
    device: str,
    json_output: bool,
) -> None:
    """The authors' ``--resume FILE --evaluate``: figures in their three conventions.

    Args:
        task: whose test images are embedded, or classified.
        path: the checkpoint.
        recipe: of a file that does not say its own.
        size: height and width of the input, where it is not the network's.
        device: ``auto``, or a torch device.
        json_output: print JSON.
    """
    from sa_runtime.errors import InputError
    from sa_training.checkpoints import load_checkpoint
    from sa_training.distributed import Processes, joined
    from sa_training.optimisation import resolve_device
    from sa_training.tasks import Reidentification

    if path is None:
        raise InputError("--evaluate: expected --resume FILE, the checkpoint to evaluate")
    people = isinstance(task, Reidentification)
    checkpoint = load_checkpoint(path, recipe, classifiers=not people)
    processes = Processes.from_environment()
    found_device = resolve_device(device, processes.local)
    network = _resized(checkpoint, size).to(found_device)
    if not isinstance(task, Reidentification):
        figures = task.test(network)
        if json_output:
            print_json(figures)
        else:
            _print_figures({str(path): figures})
        return
    from sa_runtime.retrieval.evaluation import RANKS
    from sa_training.evaluation import evaluate_network

    total = len(task.dataset.query) + len(task.dataset.gallery)
    with joined(processes, found_device), _bar("embed", total, "image", processes.first) as advance:
        report = evaluate_network(network, task.dataset, on_progress=advance)
    if not processes.first:
        return
    result = report.result
    if json_output:
        print_json(report.to_dict())
        return
    conventions = [
        (name, f"{100 * result.mAP:.1f}", *(f"{100 * result.rank(k, name):.1f}" for k in RANKS))
        for name in result.cmc
    ]
    columns = ("CMC convention", "mAP %", *(f"rank-{k} %" for k in RANKS))
    print_table(f"{path} on {task.dataset.name}", columns, conventions)


def _resized(checkpoint: Checkpoint, size: tuple[int | None, int | None]) -> SANetwork:
    """The network in evaluation mode, for input of another size where one is asked for."""
    import dataclasses

    from sa_training.network import SANetwork

    config = checkpoint.network.config
    height, width = size[0] or config.height, size[1] or config.width
    network = SANetwork(dataclasses.replace(config, height=height, width=width))
    network.load_state_dict(checkpoint.network.state_dict())
    return network.eval()
