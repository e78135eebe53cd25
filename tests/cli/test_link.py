"""``sa-deploy link`` on tracks of drawn people."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sa_runtime.artefact.contract import Contract, InputSpec, OutputSpec
from sa_runtime.items import Row
from sa_runtime.outputs.parquet import EmbeddingWriter
from tests.cli.invoke import Done, invoke

DIM = 16
CONTRACT = Contract(
    input=InputSpec(height=8, width=4), output=OutputSpec(dim=DIM), weights_sha256="0", space="s"
)


def run(*words: object) -> Done:
    return invoke("link", *words)


def write_camera(path: Path, camera: int, people: range, *, contract: Contract = CONTRACT) -> None:
    """Everybody walks past, one after the other; track numbers are persons."""
    rng = np.random.default_rng(camera)
    centres = np.random.default_rng(99).normal(size=(50, DIM))
    rows, vectors = [], []
    for turn, person in enumerate(people):
        for frame in range(3):
            seconds = 10.0 * turn + 100 * camera + frame
            rows.append(
                Row(f"c{camera}.mp4", frame, seconds, person, 0, 0, 4, 8, None, f"c{camera}")
            )
            vector = centres[person] + 0.4 * rng.normal(size=DIM)
            vectors.append(vector / np.linalg.norm(vector))
    with EmbeddingWriter(path, contract) as writer:
        writer.write(rows, np.array(vectors, np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for camera in (1, 2, 3):
        write_camera(tmp_path / f"c{camera}.parquet", camera, range(20))
    for camera in (4, 5):
        write_camera(tmp_path / f"c{camera}.parquet", camera, range(20, 50))
    done = run(tmp_path / "c4.parquet", tmp_path / "c5.parquet", "--fit", tmp_path / "link.json")
    assert done.returncode == 0, done.stderr
    assert "threshold" in done.stdout
    return tmp_path


def test_people_are_found_again_and_new_ones_join(folder: Path) -> None:
    known = ("--parameters", folder / "link.json")
    first = [folder / "c1.parquet", folder / "c2.parquet"]
    done = run(*first, *known, "--truth", "--out", folder / "who.parquet", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["tracks"], found["cameras"]) == (40, 2)
    assert found["measures"]["idf1"] > 0.9
    assert len(found["visits"]) == 40
    assert list(found["visits"][0]) == [
        *("identity", "camera", "start", "end", "source", "track_id", "rows", "certainty")
    ]
    picture = folder / "who.png"
    done = run(
        *(folder / "c3.parquet", *known, "--known", folder / "who.parquet"),
        *("--out", folder / "more.parquet", "--picture", picture, "--truth"),
    )
    assert done.returncode == 0, done.stderr
    assert "on 60 tracks" in done.stdout
    assert "IDF1" in done.stdout
    assert picture.is_file()
    before, after = (pq.read_table(folder / name) for name in ("who.parquet", "more.parquet"))
    assert after["identity"][:40].to_pylist() == before["identity"].to_pylist()


def test_mistakes_are_named_and_nothing_is_written(folder: Path) -> None:
    one, who = folder / "c1.parquet", folder / "who.parquet"
    done = run(one, "--out", who)
    assert done.returncode == 2
    assert "--parameters: expected the file of an earlier run with --fit" in done.stderr
    done = run(one, "--parameters", folder / "link.json", "--out", one)
    assert "it is read; write to another file" in done.stderr
    done = run(one, "--parameters", folder / "link.json", "--out", folder / "who.csv")
    assert "is written as Parquet" in done.stderr
    done = run(one, "--fit", folder / "x.json", "-d", "market")
    assert "--dataset: expected --data-dir too" in done.stderr
    write_camera(folder / "c9.parquet", 9, range(5), contract=replace(CONTRACT, space="other"))
    done = run(folder / "c9.parquet", "--parameters", folder / "link.json", "--out", who)
    assert done.returncode == 2
    assert "of space other" in done.stderr
    assert not who.exists()


def test_a_killed_run_leaves_the_file_of_before(folder: Path) -> None:
    who = folder / "who.parquet"
    words = [folder / "c1.parquet", "--parameters", folder / "link.json", "--out", who]
    assert run(*words).returncode == 0
    before = who.read_bytes()
    code = (
        "import os, signal, sys\nimport pyarrow.parquet as pq\nfrom sa_deploy.app import main\n"
        "write = pq.write_table\n"
        "def killed(*a, **k):\n    write(*a, **k)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pq.write_table = killed\n"
        "sys.argv = ['sa-deploy', 'link', *sys.argv[1:]]\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "c2.parquet", *map(str, words[1:])], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert who.read_bytes() == before
    assert run(folder / "c2.parquet", *words[1:]).returncode == 0
    assert who.read_bytes() != before
    assert not list(folder.glob(".*.partial*"))


def test_a_calibrated_gallery_gives_the_threshold(folder: Path) -> None:
    """Calibrated on people 20 to 49, linked on 0 to 19."""
    gallery = folder / "gallery"
    others = [folder / "c4.parquet", folder / "c5.parquet"]
    assert invoke("index", *others, "--out", gallery).returncode == 0
    asked = [folder / "c1.parquet", folder / "c2.parquet", "--truth", "--json", "--calibrated"]
    done = run(*asked, gallery)
    assert done.returncode == 2
    assert "no thresholds are stored with it; run `sa-deploy calibrate" in done.stderr
    marks = [f"c{c}.mp4,{person},p{person}" for c in (4, 5) for person in range(20, 50)]
    (folder / "who.csv").write_text("\n".join(["source,track_id,person", *marks]))
    stated = ("--marked", folder / "who.csv", "--false-accepts", 0.005)
    done = invoke("calibrate", gallery, *stated)
    assert done.returncode == 0, done.stderr
    done = run(*asked, gallery)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measures"]["idf1"] > 0.9
    done = run(*asked, gallery, "--parameters", folder / "link.json")
    assert done.returncode == 2


def test_a_file_given_twice_and_parameters_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_camera(tmp_path / "c1.parquet", 1, range(4))
    twice = run(tmp_path / "c1.parquet", tmp_path / "c1.parquet", "--parameters", tmp_path / "p")
    assert twice.returncode == 2
    assert "c1.parquet: given twice; leave one out" in twice.stderr
    model = tmp_path / "model.onnx"
    model.write_bytes(b"kept")
    wrong = run(tmp_path / "c1.parquet", "--fit", model)
    assert f"--fit {model}: is written as JSON; expected NAME.json" in wrong.stderr
    assert model.read_bytes() == b"kept"
