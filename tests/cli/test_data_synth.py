"""``sa-deploy data synth``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sa_deploy.app import app
from sa_runtime.errors import DatasetError, InputError

SMALL = ["--identities", "4", "--cameras", "2", "--images", "2", "--workers", "1"]


def test_json_tells_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "world"
    run = CliRunner().invoke(
        app, ["data", "synth", str(out), *SMALL, "--seconds", "0.2", "--seed", "5", "--json"]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout) == {
        "out": str(out),
        "seed": 5,
        "train": 8,
        "query": 4,
        "gallery": 4,
        "distractors": 4,
        "junk": 2,
        "videos": 2,
        "frames": 4,
    }
    assert len(list((out / "bounding_box_test").iterdir())) == 4 + 4 + 2
    assert sorted(path.name for path in (out / "videos").iterdir()) == [
        "c1.gt.txt",
        "c1.mp4",
        "c2.gt.txt",
        "c2.mp4",
    ]
    assert json.loads((out / "synthetic.json").read_text())["config"]["people_per_video"] == 2


def test_table_and_next_step(tmp_path: Path) -> None:
    out = tmp_path / "world"
    run = CliRunner().invoke(app, ["data", "synth", str(out), *SMALL, "--videos", "0"])
    assert run.exit_code == 0, run.output
    assert "distractors" in run.stdout
    assert f"sa-deploy data check --data-dir {out}" in run.stderr


def test_force_is_asked_for(tmp_path: Path) -> None:
    arguments = ["data", "synth", str(tmp_path / "world"), *SMALL, "--videos", "0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, DatasetError)
    assert "`force=True`" in str(refused.exception)
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--people", "3", r"people_per_video=3: expected 1 to 2"),
        ("--identities", "-3", "identities=-3: expected 2 to 9999"),
        ("--workers", "0", "workers=0: expected at least 1"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, option: str, value: str, text: str) -> None:
    run = CliRunner().invoke(app, ["data", "synth", str(tmp_path / "world"), *SMALL, option, value])
    assert isinstance(run.exception, InputError)
    with pytest.raises(InputError, match=text):
        raise run.exception
    assert list(tmp_path.iterdir()) == []
