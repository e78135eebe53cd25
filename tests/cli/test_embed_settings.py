"""Settings in files; shares, cameras and threads from the command line."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import InputError
from sa_runtime.outputs.manifest import Manifest
from sa_runtime.outputs.read import read_embeddings
from sa_runtime.pipeline.choice import Share
from tests.clip import Clip

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> dict[str, Any]:
        result = CliRunner().invoke(
            app, ["embed", *map(str, words), "--json"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return call


@pytest.fixture
def job(tiny_model: TinyModel, clip: Clip, tmp_path: Path) -> Path:
    """A job whose texts need quoting in TOML."""
    odd = tmp_path / 'a "b" \\ ü #.mp4'
    shutil.copy(clip.video, odd)
    path = tmp_path / "job.toml"
    path.write_text(
        f"model = '{tiny_model.path}'\n"
        f"sources = ['{odd}']\n"
        f"detections = ['{clip.detections}']\n"
        "out = ['week/', 'week.npz']\n"
        "runtime = 'onnxruntime'\nbatch-size = 7\nshard_rows = 90\nresume = true\n"
        "camera = 'door'\nthreads = 1\n"
    )
    return path


def test_a_file_of_settings_makes_the_same_run_again(
    run: Run, job: Path, clip: Clip, tmp_path: Path
) -> None:
    first = run("--config", job, "--save-config", "saved.toml")
    assert (first["rows"], first["outs"]) == (clip.boxes, ["week", "week.npz"])
    manifest = Manifest.read(tmp_path / "week")
    saved = tomllib.loads((tmp_path / "saved.toml").read_text())
    assert saved == manifest.settings
    given = tomllib.loads(job.read_text())
    assert {name.replace("_", "-"): value for name, value in given.items()}.items() <= saved.items()
    run("--config", "saved.toml", "--out", "second/", "--save-config", "again.toml")
    assert tomllib.loads((tmp_path / "again.toml").read_text()) == {**saved, "out": ["second/"]}
    run("--config", "week/_manifest.json", "--out", "third/")
    one = read_embeddings(tmp_path / "week")
    for name in ("second", "third"):
        other = read_embeddings(tmp_path / name)
        assert one.rows.equals(other.rows)
        np.testing.assert_array_equal(one.vectors, other.vectors)


def test_the_line_wins_over_the_file(run: Run, job: Path, tmp_path: Path) -> None:
    run("--config", job, "--camera", "gate", "-b", 3, "-o", "other.parquet", "-o", "other/")
    settings = Manifest.read(tmp_path / "other").settings
    assert (settings["camera"], settings["batch-size"]) == ("gate", 3)
    assert not (tmp_path / "week").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "bach-size = 3",
            r"`sa-deploy embed` has no option 'bach-size'; did you mean 'batch-size'",
        ),
        ("json = true", "has no option 'json'"),
        ("batch-size = [1, 2]", r"batch-size = \[1, 2\]: expected one value"),
        ("resume = 'yes'", 'resume = "yes": expected true or false'),
        ("[out]\na = 1", r"out = .*: expected a list of values"),
        ("model = ", "not settings that can be read"),
        ("\udce9", "not settings that can be read"),
    ],
)
def test_what_a_file_cannot_say_is_named(run: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=rf"job\.toml: .*{message}"):
        run("--config", "job.toml")


def test_a_value_of_another_type_is_a_usage_error(job: Path) -> None:
    job.write_text(job.read_text().replace("batch-size = 7", "batch-size = 'many'"))
    result = CliRunner().invoke(app, ["embed", "--config", str(job)])
    assert result.exit_code == 2
    assert "'-b' / '--batch-size': Input should be a valid integer" in " ".join(
        result.output.split()
    )


@pytest.fixture
def clips(clip: Clip, tmp_path: Path) -> list[Path]:
    found = []
    for index in range(6):
        (tmp_path / f"cam{index % 2}").mkdir(exist_ok=True)
        found.append(tmp_path / f"cam{index % 2}" / f"{index}_c{index % 3}.mp4")
        shutil.copy(clip.video, found[-1])
    return found


def test_shares_are_all_of_it_and_stay_where_they_are(
    run: Run, tiny_model: TinyModel, clip: Clip, clips: list[Path], tmp_path: Path
) -> None:
    boxes = [word for _ in clips for word in ("--detections", clip.detections)]
    common = ["--runtime", "onnxruntime", "--shard-rows", 1000]
    run(tiny_model.path, *clips, *boxes, "-o", "all/", *common)
    rows = []
    for number in (1, 2, 3):
        run(tiny_model.path, *clips, *boxes, "-o", f"{number}/", "--shard", f"{number}/3", *common)
        rows += read_embeddings(tmp_path / str(number)).rows.to_pylist()
    whole = read_embeddings(tmp_path / "all").rows.to_pylist()
    assert sorted(rows, key=str) == sorted(whole, key=str)
    # Half of the sources are enough to know the share of each.
    for number in (1, 2, 3):
        share = Share(f"{number}/3")
        sources = set(read_embeddings(tmp_path / str(number)).rows["source"].to_pylist())
        assert sources == {str(clip) for clip in clips if share.has(str(clip))}
    with pytest.raises(InputError, match=r"options\.shard was \"1/3\" and is \"2/3\""):
        run(*(tiny_model.path, *clips, *boxes, "-o", "1/", "--shard", "2/3", "--resume"), *common)
    for bad in ("0/3", "4/3", "1", "1/0", "²/3"):
        with pytest.raises(InputError, match=r"shard='.*': expected i/n with i from 1 to n"):
            run(tiny_model.path, *clips, *boxes, "-o", "x/", "--shard", bad)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("name", ["0_c0", "1_c1", "2_c2"]),
        ("folder", ["cam0", "cam1", "cam0"]),
        (r"_(c\d)", ["c0", "c1", "c2"]),
        (r"c[01]\b", ["c0", "c1", None]),
    ],
)
def test_the_camera_is_told_from_the_source(
    run: Run,
    tiny_model: TinyModel,
    clip: Clip,
    clips: list[Path],
    tmp_path: Path,
    rule: str,
    expected: list[str | None],
) -> None:
    boxes = [word for _ in clips[:3] for word in ("--detections", clip.detections)]
    run(tiny_model.path, *clips[:3], *boxes, "-o", "a.parquet", "--camera-from", rule)
    rows = read_embeddings(tmp_path / "a.parquet").rows
    found = dict(zip(rows["source"].to_pylist(), rows["camera"].to_pylist(), strict=True))
    assert [found[str(clip)] for clip in clips[:3]] == expected


def test_rules_that_are_none_are_refused(
    run: Run, tiny_model: TinyModel, clip: Clip, clips: list[Path]
) -> None:
    words = [tiny_model.path, clips[0], "--detections", clip.detections, "-o", "a.parquet"]
    with pytest.raises(InputError, match=r"camera_from='\(': expected name, folder or a regular"):
        run(*words, "--camera-from", "(")
    with pytest.raises(InputError, match=r"camera_from='name': does not go with `camera`"):
        run(*words, "--camera-from", "name", "--camera", "door")
