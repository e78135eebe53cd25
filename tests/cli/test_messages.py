"""What a command says on stderr: notes, log records and progress, as lines or as JSON."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sa_deploy import logs
from sa_deploy.app import app
from sa_deploy.output import note
from sa_deploy.progress import INTERVAL_VARIABLE, ProgressLines, progress

SMALL = [
    *("--identities", "4", "--cameras", "2", "--images", "2"),
    *("--videos", "0", "--workers", "1"),
]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    logs.configure(logs.LogOptions())


def synth(out: Path, before: list[str], after: list[str]) -> Result:
    words = [*before, "data", "synth", str(out), *SMALL, *after]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("flags", "notes"), [([], True), (["-v"], True), (["-q"], False), (["--quiet"], False)]
)
def test_quiet_leaves_the_result(tmp_path: Path, where: str, flags: list[str], notes: bool) -> None:
    before, after = (flags, []) if where == "before" else ([], flags)
    done = synth(tmp_path / "world", before, after)
    assert ("Check it with: sa-deploy data check --data-dir " in done.stderr) is notes
    assert "Synthetic data set" in done.stdout


def test_json_lines(tmp_path: Path) -> None:
    done = synth(tmp_path / "world", [], ["--log-json"])
    (line,) = map(json.loads, done.stderr.splitlines())
    assert list(line) == ["time", "level", "logger", "message"]
    assert (line["level"], line["logger"]) == ("info", "sa_deploy")
    assert line["message"].startswith("Check it with: ")
    assert "Synthetic data set" in done.stdout


def test_verbose_and_quiet_contradict(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["-v", "doctor", "-q"])
    assert done.exit_code == 2
    assert "contradicts -v/--verbose" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (logs.LogOptions(), ["a note", "warning: a warning"]),
        (logs.LogOptions(quiet=True), []),
        (
            logs.LogOptions(verbose=1),
            ["a note", "sa_runtime.x: a measurement", "warning: a warning"],
        ),
    ],
)
def test_how_much_is_said(
    capsys: pytest.CaptureFixture[str], options: logs.LogOptions, said: list[str]
) -> None:
    logs.configure(options)
    note("a note")
    logger = logging.getLogger("sa_runtime.x")
    logger.debug("a detail")
    logger.info("a measurement")
    logger.warning("a warning")
    assert capsys.readouterr().err.splitlines() == said


def test_fields_of_a_record_stand_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.LogOptions(as_json=True, verbose=1))
    logging.getLogger("sa_runtime.x").info("took %s", "openvino", extra={"images_per_s": 7.5})
    line: dict[str, Any] = json.loads(capsys.readouterr().err)
    assert (line["message"], line["images_per_s"]) == ("took openvino", 7.5)


def test_importing_sets_nothing_up() -> None:
    code = (
        "import logging, sa_deploy, sa_deploy.app, sa_deploy.logs, sa_runtime.runners.auto\n"
        "names = ['', 'sa_deploy', 'sa_runtime']\n"
        "print([logging.getLogger(name).handlers for name in names])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[[], [], []]\n"


WORK = """
import sys, time
from sa_deploy.progress import progress
with progress("training", 2400, unit="step") as advance:
    for step in (100, 120):
        advance(completed=step)
        time.sleep(0.4)
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_long_work_without_a_terminal_says_how_far_it_is(as_json: bool) -> None:
    code = WORK
    if as_json:
        code = f"from sa_deploy import logs\nlogs.configure(logs.LogOptions(as_json=True)){WORK}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, INTERVAL_VARIABLE: "0.5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    if as_json:
        found = json.loads(line)
        assert (found["done"], found["total"], found["logger"]) == (120, 2400, "sa_deploy")
        assert found["seconds_left"] > 0
        line = found["message"]
    assert line.startswith("training: step 120 of 2400, 5 %, ")
    assert line.endswith(" left")


def test_quiet_work_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.001")
    logs.configure(logs.LogOptions(quiet=True))
    with progress("training", 3) as advance:
        advance()
    assert capsys.readouterr().err == ""


def test_a_resumed_run_counts_its_own_steps_only() -> None:
    now = [0.0]
    lines = ProgressLines("train", 1000, "step", clock=lambda: now[0])
    lines.advance(completed=900)
    assert lines.line() == "train: step 900 of 1000, 90 %"
    now[0] = 60.0
    lines.advance(completed=920, description="epoch 9/10")
    assert lines.line() == "train: step 920 of 1000, 92 %, 4 min left (epoch 9/10)"


def test_work_of_unknown_length_says_how_long_it_takes() -> None:
    now = [0.0]
    lines = ProgressLines("Building engine", None, clock=lambda: now[0])
    now[0] = 130.0
    assert lines.line() == "Building engine: 2 min so far"


def test_work_that_follows_is_estimated_by_its_own_pace() -> None:
    now = [0.0]
    lines = ProgressLines("index", None, "row", clock=lambda: now[0])
    lines.advance(completed=50_000)
    now[0] = 10.0
    lines.advance(completed=0, total=50_000, description="build the index")
    now[0] = 70.0
    lines.advance(completed=25_000)
    assert lines.line() == "index: row 25000 of 50000, 50 %, 1 min left (build the index)"
