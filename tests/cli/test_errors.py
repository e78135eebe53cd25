"""The one door for errors: options for parameters, one line, and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from sa_deploy.app import app
from sa_deploy.errors import for_command, known_error, running_command
from sa_runtime.errors import InputError, MissingFileError, SaDeployError, bad_value
from sa_runtime.runners.table import runner_class
from tests.file_limits import process_with_files_up_to

ROOT: Any = typer.main.get_command(app)

SPELT: list[tuple[str, SaDeployError, str]] = [
    ("embed", bad_value("runtime", "x", "unknown"), "--runtime x: unknown"),
    ("embed", bad_value("batch_size", 0, "expected at least 1"), "--batch-size 0: expected at le"),
    ("evaluate", bad_value("data_dir", "a b", "no such folder"), "--data-dir 'a b': no such fol"),
    ("train", InputError("3 images; pass a smaller `batch_size`"), "pass a smaller --batch-size"),
    ("train", bad_value("batch", 0, "expected", prefix="recipe sa: "), "sa: --batch-size 0: expe"),
    ("train", bad_value("backbone", "x", "expected"), "--arch x: expected"),
    ("train", bad_value("log_every", 0, "expected"), "--print-freq 0: expected"),
    ("train", InputError("pass `recipe='cifar100-sa'`"), "pass --recipe cifar100-sa"),
    ("embed", InputError("go on with `resume=True`"), "go on with --resume"),
    ("embed", InputError("give `detections=FILE`"), "give --detections FILE"),
    ("build", InputError("build with `plugin=False`"), "build with --no-plugin"),
    ("build", bad_value("strip", True, "needs a GPU"), "--strip: needs a GPU"),
    ("build", bad_value("workspace_gib", 0.0, "expected"), "--workspace 0: expected"),
    ("export", bad_value("embeddings", ("parts", "parts"), "once"), "--embedding parts,parts: "),
    ("export", bad_value("target", "gpu", "unknown"), "--int8-target gpu: unknown"),
    ("adopt", bad_value("std", (0.0, 1.0, 1.0), "above 0"), "--std 0,1,1: above 0"),
    ("data synth", bad_value("identities", 1, "expected 2"), "--identities 1: expected 2"),
    # What a command does not have, and what only looks like a parameter, stays.
    ("doctor", bad_value("runtime", "x", "unknown"), "runtime='x': unknown"),
    ("evaluate", InputError("camera=7/`a.jpg`: no image"), "camera=7/`a.jpg`: no image"),
    ("embed", InputError("see `sa-deploy doctor`"), "see `sa-deploy doctor`"),
]


@pytest.mark.parametrize(("words", "error", "expected"), SPELT)
def test_a_parameter_is_spelt_as_the_option_of_the_command(
    words: str, error: SaDeployError, expected: str
) -> None:
    assert expected in for_command(error, running_command(ROOT, words.split()))


def test_the_library_names_the_parameter_and_the_command_its_option() -> None:
    with pytest.raises(InputError, match=r"^runtime='x': unknown; choose from auto") as caught:
        runner_class("x")
    assert (caught.value.parameter, caught.value.value) == ("runtime", "x")
    command = running_command(ROOT, ["-v", "evaluate", "model.onnx", "--runtime", "x"])
    assert for_command(caught.value, command).startswith("--runtime x: unknown; choose from auto")


def test_the_running_command_is_found_behind_options_of_the_root() -> None:
    assert running_command(ROOT, ["-q", "data", "synth", "out"]).name == "synth"
    assert running_command(ROOT, []) is ROOT
    assert running_command(ROOT, ["no-such"]) is ROOT


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "out.parquet: no space is left on the disk; free some"),
        (errno.EROFS, "out.parquet: the file system is read-only; write to another folder"),
        (errno.EACCES, "out.parquet: permission denied; choose another path"),
        (errno.EFBIG, "out.parquet: larger than a file may be here; see `ulimit -f`"),
        (errno.EIO, "out.parquet: Input/output error"),
    ],
)
def test_an_error_of_the_system_names_the_file_and_the_way_out(number: int, text: str) -> None:
    known = known_error(OSError(number, os.strerror(number), "out.parquet"))
    assert known is not None
    assert str(known).startswith(text)
    assert known.exit_code == 2


def test_other_known_conditions() -> None:
    with pytest.raises(MemoryError) as memory:
        np.empty((10**9, 384, 128, 3))
    found = known_error(memory.value)
    assert found is not None
    command = running_command(ROOT, ["embed"])
    assert "pass a smaller --batch-size" in for_command(found, command)
    with pytest.raises(UnicodeEncodeError) as name:
        os.fsdecode(b"/data/caf\xe9.jpg").encode()
    assert r"'caf\udce9.jpg': a name that is not UTF-8; rename" in str(known_error(name.value))
    assert known_error(ValueError("a defect")) is None
    missing = MissingFileError("a: no such file", path="a")
    assert known_error(missing) is missing


def run(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sa_deploy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def failing(error: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command line with a command that raises."""
    code = (
        "import sys\nfrom sa_deploy.commands import doctor\nfrom sa_deploy.app import main\n"
        "from sa_runtime.errors import *\n"
        f"def broken(): raise {error}\n"
        "doctor.doctor = broken\nsys.argv = ['sa-deploy', 'doctor']\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("InputError('wrong')", 2),
        ("ParityError('wrong')", 3),
        ("IncompleteError('wrong')", 4),
        ("KeyboardInterrupt", 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_one_line(error: str, code: int) -> None:
    done = failing(error, {})
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr in ("error: wrong\n", "error: interrupted\n")


def test_a_defect_keeps_its_traceback_and_says_where_to_report_it() -> None:
    done = failing("ZeroDivisionError('a defect')", {})
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ZeroDivisionError: a defect"
    assert lines[-1].startswith("error: a defect of sa-deploy 0.")
    assert "report it at " in lines[-1]


def test_the_debug_switch_shows_the_traceback_of_known_errors() -> None:
    done = failing("InputError('wrong')", {"SA_DEPLOY_DEBUG": "1"})
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("\nerror: wrong\n")


def test_a_reader_that_goes_away_is_one_line() -> None:
    for words in (["doctor"], ["doctor", "--json"], ["bench", "--help"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "sa_deploy", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 2, said
        assert said.startswith("error: the reader of a pipe went away before all was written")
        assert len(said.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_standard_output_on_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sa_deploy", "doctor", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "no space is left on the disk; free some" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(
        *("data", "synth", str(tmp_path / "world"), "--identities", "4", "--cameras", "2"),
        *("--videos", "0", "--workers", "1"),
        **process_with_files_up_to(1000),
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sa_deploy", "data", "synth", str(tmp_path / "w"), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in said + out
