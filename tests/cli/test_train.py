"""``sa-deploy train``: the authors' command lines, planning, running, resuming, evaluating."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sa_deploy.app import app
from sa_deploy.progress import INTERVAL_VARIABLE
from sa_deploy.threads import SPINS
from sa_runtime.errors import DatasetError, InputError, MissingFileError
from sa_training.checkpoints import load_checkpoint, weights_sha256
from sa_training.network import SANetwork
from sa_training.recipes import authors, sa

TINY = "--recipe tiny --height 64 --width 32 --set network.parts=4 -b 16 --device cpu"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and no ImageNet weights at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("COLUMNS", "200")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(line: str, root: Path, *more: object) -> Result:
    arguments = [*shlex.split(line), "--data-dir", str(root), *map(str, more)]
    return CliRunner().invoke(app, ["train", *arguments])


def succeeds(line: str, root: Path, *more: object) -> dict[str, Any]:
    done = train(line, root, "--json", *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def market(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images in the layout of Market-1501: one batch of 48, 8 queries, 24 to search."""
    root = tmp_path_factory.mktemp("few") / "Market-1501"
    for folder, count in (("bounding_box_train", 48), ("query", 8), ("bounding_box_test", 24)):
        (root / folder).mkdir(parents=True)
        files = sorted((synthetic_root / folder).glob("*.jpg"))
        people = [file for file in files if not file.name.startswith(("-1", "0000"))]
        for file in people[:count]:
            shutil.copy(file, root / folder)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "classes"),
    [
        pytest.param(
            "-d market -b 48 -j 4 --epochs 100 --log logs/market/ --combine-trainval "
            "--step-size 40 --data-dir {root} --max-steps 1",
            ("resnet50", 384, 128, 256),
            marks=pytest.mark.soak,
            id="a batch of 48",
        ),
        (
            "-d market -b 8 -j 4 --epochs 100 --log logs/market/ --combine-trainval "
            "--step-size 40 --data-dir {root} --max-steps 1",
            ("resnet50", 384, 128, 256),
        ),
        (
            "-d market -b 8 -j 4 --epochs 60 --log logs/market/ --feature 256 --height 384 "
            "--width 128 --combine-trainval --step-size 40 --data-dir {root} --max-steps 1",
            ("resnet50", 384, 128, 256),
        ),
    ],
)
def test_the_authors_training_commands(
    market: Path, line: str, classes: tuple[str, int, int, int]
) -> None:
    torch.set_num_threads(2)
    arguments = shlex.split(line.format(root=market))
    done = CliRunner().invoke(app, ["train", *arguments])
    assert done.exit_code == 0, done.output
    assert "A trial of --max-steps goes on from random weights" in " ".join(done.stderr.split())
    checkpoint = load_checkpoint(Path("logs/market/checkpoint.pt"))
    config = checkpoint.network.config
    assert (config.backbone, config.height, config.width, config.features) == classes
    assert checkpoint.training["step"] == 1
    assert Path("logs/market/curves.png").is_file()


@pytest.mark.slow
def test_the_authors_evaluation_command(market: Path) -> None:
    """On a file of theirs: theirs name it .pth.tar and write no recipe into it."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = SANetwork(authors().network)
    Path("model").mkdir()
    content = {"state_dict": network.state_dict(), "epoch": 100, "best_top1": 0}
    torch.save(content, "model/checkpoint.pth.tar")
    done = train(
        "-d market -b 48 -j 4 --epochs 100 --log logs/market/ --combine-trainval --step-size 40 "
        "--resume ./model/checkpoint.pth.tar --evaluate",
        market,
    )
    assert done.exit_code == 0, done.output
    table = done.stdout
    for text in ("mAP %", "rank-1 %", "rank-5 %", "rank-10 %", "market1501", "allshots", "cuhk03"):
        assert text in table
    assert not Path("logs").exists()


def test_a_plan_says_what_would_be_done(synthetic_root: Path) -> None:
    found = succeeds("-d market -b 16 --epochs 10 --step-size 4 --dry-run", synthetic_root)
    assert (found["images"], found["classes"]) == (96, 12)
    assert (found["epoch_steps"], found["steps"]) == (6, 60)
    assert found["recipe"]["name"] == "sa"
    assert found["recipe"]["step_size"] == 4
    assert found["recipe"]["network.classes"] == 12
    # ResNet-50 without its classifier, the embedding, ten classifiers, three reductions.
    expected = 23_508_032 + 2048 * 256 + 2 * 256 + 10 * (256 * 12 + 12) + 256 * (256 + 512 + 1024)
    assert found["parameters"] == expected
    assert found["gflops"] == pytest.approx(12.2, abs=0.1)
    assert found["data"]["train"] == "96 images, 12 people, 4 cameras"
    assert not Path("runs").exists()
    table = train("-d market --dry-run", synthetic_root)
    assert table.exit_code == 0, table.output
    assert "network.backbone" in table.stdout
    assert "GFLOPs an image, forward" in table.stdout


def test_a_run_its_resumption_and_its_test(synthetic_root: Path) -> None:
    line = f"{TINY} -d synthetic --epochs 2 --out run --evaluate-every 1 --print-freq 2"
    first = succeeds(f"{line} --max-steps 4", synthetic_root)
    assert (first["steps"], first["epochs"], first["test"]) == (4, 0, {})
    found = succeeds(f"{line} --resume run", synthetic_root)
    assert (found["steps"], found["epochs"]) == (12, 2)
    tested = list(found["test"])
    assert tested[0] == "last, epoch 2"
    assert tested[1].startswith("best, epoch ")
    last = found["test"]["last, epoch 2"]
    assert list(last) == ["mAP", "rank1", "rank5", "rank10"]
    network = load_checkpoint(Path("run/checkpoint.pt")).network
    assert found["weights_sha256"] == weights_sha256(network)
    names = {path.name for path in Path("run").iterdir()}
    assert names == {
        *("checkpoint.pt", "checkpoint.previous.pt", "best.pt"),
        *("metrics.jsonl", "steps.csv", "curves.png"),
    }
    evaluated = succeeds("-d synthetic --resume run --evaluate", synthetic_root)
    assert evaluated["mAP"] == pytest.approx(last["mAP"], abs=1e-6)
    assert evaluated["cmc"]["market1501"]["rank5"] == pytest.approx(last["rank5"], abs=1e-6)
    assert set(evaluated["cmc"]) == {"market1501", "allshots", "cuhk03"}


def test_no_run_is_lost_to_a_later_one(synthetic_root: Path) -> None:
    """A folder that was named is refused; without one the next free name is taken."""
    line = f"{TINY} -d synthetic --max-steps 1"
    first, second = (succeeds(line, synthetic_root)["checkpoint"] for _ in range(2))
    assert (first, second) == ("runs/train/checkpoint.pt", "runs/train-2/checkpoint.pt")
    before = Path(first).read_bytes()
    for more in ("--out runs/train", "--out runs/train --resume runs/train-2"):
        refused = train(f"{line} {more}", synthetic_root)
        assert isinstance(refused.exception, InputError)
        assert (
            "out='runs/train': holds the weights of an earlier run; go on with it by `resume="
            in str(refused.exception)
        )
    assert Path(first).read_bytes() == before
    succeeds(f"{TINY} -d synthetic --max-steps 2 --resume runs/train", synthetic_root)
    assert load_checkpoint(Path(first)).training["step"] == 2


def test_a_folder_of_people_without_a_training_split(synthetic_root: Path, tmp_path: Path) -> None:
    for person, file in enumerate(sorted((synthetic_root / "query").glob("*.jpg"))[:3]):
        (tmp_path / "crops" / f"p{person}").mkdir(parents=True)
        shutil.copy(file, tmp_path / "crops" / f"p{person}")
    refused = train(f"{TINY} -d folder", tmp_path / "crops")
    assert isinstance(refused.exception, DatasetError)
    with pytest.raises(
        DatasetError,
        match=r"crops: no training images: it is laid out as PERSON/\*\.jpg \(3 people\), .*"
        r"expected train/PERSON/\*\.jpg, .* move the people to train on into .*crops/train",
    ):
        raise refused.exception


def test_a_time_budget_only_sets_the_epochs(synthetic_root: Path) -> None:
    """More than enough time for four times the recipe's one; an interrupted run keeps them."""
    line = f"{TINY} -d synthetic --evaluate-every 0"
    budget = f"{line} --set epochs=1 --time-budget 100h"
    done = train(f"{budget} --out budget --max-steps 8", synthetic_root)
    assert done.exit_code == 0, done.output
    assert "--time-budget: 4 epochs of 6 steps at " in done.stderr
    assert "4 times the recipe's 1 is the most" in done.stderr
    resumed = succeeds(f"{line} --out budget --resume budget", synthetic_root)
    whole = succeeds(f"{line} --epochs 4 --out whole", synthetic_root)
    assert (resumed["epochs"], resumed["steps"]) == (4, 24)
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def test_a_budget_that_the_trial_uses_up_says_so(synthetic_root: Path) -> None:
    done = train(f"{TINY} -d synthetic --out run --time-budget 0.001s", synthetic_root)
    assert done.exit_code == 0, done.output
    assert "epochs of 6 steps at " in done.stderr
    assert "a step is the least, so that the budget will not hold" in done.stderr
    assert "s; planned: 1 at step 0" in done.stderr


def test_tables_for_people(synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.02")
    line = f"{TINY} -d synthetic --epochs 1 --split 0 --out run --evaluate-every 1 -v"
    done = train(line, synthetic_root)
    assert done.exit_code == 0, done.output
    assert re.search(r"(?m)^train tiny: step \d of 6, \d+ %", done.stderr)
    assert re.search(r"(?m)^sa_training.loop: epoch 1: mAP 0\.\d{4}, rank1 ", done.stderr)
    assert re.search(r"(?m)^loss +\d+\.\d{1,3} *$", done.stdout)
    assert re.search(r"(?m)^weights \(SHA-256\) +[0-9a-f]{12}\.\.\. *$", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "--split has no effect" in done.stderr
    assert "last, epoch 1" in done.stdout
    assert "next: sa-deploy export --onnx run/checkpoint.pt --out run" in done.stderr


def test_another_input_size_is_evaluated(synthetic_root: Path) -> None:
    succeeds(f"{TINY} -d synthetic --max-steps 1 --out run", synthetic_root)
    figures = [
        succeeds(f"-d synthetic --resume run --evaluate {size}", synthetic_root)["mAP"]
        for size in ("", "--height 64 --width 32", "--height 128 --width 64")
    ]
    assert figures[0] == figures[1] != figures[2]


def test_options_of_the_authors_reach_the_recipe(synthetic_root: Path) -> None:
    found = succeeds(
        "-a resnet18 --features 64 --dropout 0.25 --lr 0.02 --momentum 0.8 --weight-decay 0.001 "
        "--seed 3 --split 1 --print-freq 5 --logs-dir elsewhere --epochs 7 --batch-size 8 "
        "--step-size 3 --height 256 --width 64 --attention none --dry-run",
        synthetic_root,
    )["recipe"]
    assert {key: found[key] for key in found if found[key] != _default(key)} == {
        "network.backbone": "resnet18",
        "network.features": 64,
        "network.dropout": 0.25,
        "network.attention": "none",
        "network.height": 256,
        "network.width": 64,
        "network.classes": 12,
        "lr": 0.02,
        "momentum": 0.8,
        "weight_decay": 0.001,
        "epochs": 7,
        "batch": 8,
        "step_size": 3,
    }


def _default(key: str) -> Any:
    owner: Any = sa().network if key.startswith("network.") else sa()
    return getattr(owner, key.removeprefix("network."))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("--time-budget soon", InputError, r"time_budget='soon': expected a duration, for example"),
        ("--time-budget 1h --epochs 9", InputError, r"--time-budget: sets the number of epochs;"),
        ("--evaluate", InputError, r"--evaluate: expected --resume FILE"),
        ("--recipe huge", InputError, r"recipe='huge': unknown; choose from sa"),
        ("--set erase", InputError, r"--set erase: expected FIELD=VALUE"),
        ("-a alexnet", InputError, r"backbone='alexnet': expected one of resnet10-thin"),
        ("--resume absent.pt", MissingFileError, r"absent.pt: no such file"),
        ("--pretrained absent.pth", InputError, r"pretrained='absent.pth': no such file"),
        ("--seed -1", InputError, r"seed=-1: expected 0 or more"),
        (
            "--recipe cifar100-sa",
            InputError,
            r"recipe cifar100-sa: classifies images, and .* holds",
        ),
        ("-d market,cifar100", InputError, r"names='market,cifar100': cifar100 is classified"),
        ("-d duck", InputError, r"dataset='duck': unknown"),
    ],
)
def test_what_cannot_be_done(
    synthetic_root: Path, line: str, kind: type[Exception], message: str
) -> None:
    done = train(line, synthetic_root)
    assert isinstance(done.exception, kind)
    with pytest.raises(kind, match=message):
        raise done.exception


def test_threads_that_wait_leave_their_core_to_others() -> None:
    """torch's own OpenMP says how long they spin: as set for it, or as the user has set it."""
    torch_root = Path(torch.__file__).parent
    openmp = next(iter(torch_root.glob("lib/libgomp*")), None)
    if openmp is None:
        pytest.skip("this torch brings another OpenMP than libgomp")
    code = (
        "import contextlib, ctypes, sys; from sa_deploy.app import main\n"
        "sys.argv = ['sa-deploy', '--version']\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        f"ctypes.CDLL({str(openmp)!r})\n"
    )
    cleared = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    for own, spins in (({}, SPINS), ({"GOMP_SPINCOUNT": "77"}, 77)):
        environment = {**cleared, "OMP_DISPLAY_ENV": "verbose", **own}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_a_budget_on_a_processor_names_its_recipe(market: Path, tmp_path: Path) -> None:
    """From ImageNet weights where they are at hand, which they are not here."""
    line = "--device cpu --time-budget 60m --dry-run --json"
    done = train(line, market)
    assert json.loads(done.stdout)["recipe"]["name"] == "cpu"
    assert "Without them the recipe is cpu" in done.stderr
    given = succeeds("--device cpu --time-budget 60m --dry-run", market, "--pretrained", "w.pth")
    assert (given["recipe"]["name"], given["recipe"]["pretrained"]) == ("hour", "w.pth")
    assert succeeds("--device cpu --dry-run", market)["recipe"]["name"] == "sa"
