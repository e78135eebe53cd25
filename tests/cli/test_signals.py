"""What a stopped process leaves: nothing that is half written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sa_training.checkpoints import load_checkpoint

WRITER = """
import sys, time
from pathlib import Path
from sa_deploy.signals import exit_on_signals
from sa_runtime.system.files import atomic_path

exit_on_signals()
with atomic_path(Path(sys.argv[1])) as temporary:
    try:
        temporary.write_bytes(b"half")
        print("half", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep(0.3)
"""


def test_sigterm_removes_what_is_half_written(tmp_path: Path) -> None:
    """A second SIGTERM, as of a supervisor that sends it to a whole group, changes nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "model.onnx")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    assert process.stdout.readline() == b"leaving\n"
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


UNHEARD = """
import os, sys, time, weakref
from sa_deploy.signals import exit_on_signals

class Lock:
    pass

def interrupt(reference=None):
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(10_000):
        pass

exit_on_signals()
if sys.argv[2] == "callback":
    lock = Lock()
    reference = weakref.ref(lock, interrupt)
    del lock
else:
    try:
        import swallows
    except BaseException:
        pass
time.sleep(20)
"""
SWALLOWS = "import __main__\n__main__.interrupt()\n"


@pytest.mark.parametrize("where", ["callback", "import"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_signal_is_heard_where_nothing_can_be_raised(
    where: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C while numpy.random was imported was lost: Cython drops what is raised there."""
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    done = subprocess.run(
        [sys.executable, "-c", UNHEARD, str(int(number)), where],
        timeout=10,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.returncode == code
    assert b"Exception ignored" not in done.stderr


@pytest.mark.slow
def test_a_stopped_training_leaves_a_whole_checkpoint(synthetic_root: Path, tmp_path: Path) -> None:
    """One that writes a checkpoint after every step; test_interrupted.py resumes such a run."""
    line = "--dataset synthetic --recipe tiny --device cpu --height 64 --width 32 -b 16"
    line += " --set network.parts=4 --epochs 1000 --checkpoint-steps 1 --evaluate-every 0"
    train = [sys.executable, "-m", "sa_deploy", "train", *line.split()]
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*train, "--data-dir", str(synthetic_root), "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    while not (out / "checkpoint.previous.pt").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.uniform(0.0, 0.3))
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said.decode()
    assert b"Traceback" not in said, said.decode()
    assert load_checkpoint(out / "checkpoint.pt").training["step"] >= 2
    names = {path.name for path in out.iterdir()}
    assert names <= {"checkpoint.pt", "checkpoint.previous.pt", "steps.csv", "metrics.jsonl"}
