"""Which data set a folder holds, told by what is in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sa_runtime.datasets.check import check_dataset
from sa_runtime.datasets.loading import load_dataset
from sa_runtime.datasets.recognise import recognise
from sa_runtime.errors import InputError
from tests.runtime.datasets.test_datasets_layout import CONFIG, MARKET_FOLDERS

if TYPE_CHECKING:
    from tests.runtime.datasets.conftest import Miniatures


@pytest.mark.parametrize(
    ("built", "name"),
    [
        ("market", "market"),
        ("duke", "duke"),
        ("synthetic", "synthetic"),
        ("cuhk03", "cuhk03-labelled"),
        ("cuhk03_np", "cuhk03-labelled"),
        ("msmt17", "msmt17"),
        ("msmt17_v2", "msmt17"),
        ("folder", "folder"),
        ("flat_folder", "folder"),
    ],
)
def test_recognised(miniatures: Miniatures, tmp_path: Path, built: str, name: str) -> None:
    root = getattr(miniatures, built)(tmp_path)
    assert recognise(root) == name
    assert load_dataset("auto", root).name == load_dataset(name, root).name


def test_market_without_queries_is_not_taken_for_folders(
    miniatures: Miniatures, tmp_path: Path
) -> None:
    root = miniatures.market(tmp_path)
    shutil.rmtree(root / "query")
    with pytest.raises(InputError) as caught:
        load_dataset("folder", root)
    assert str(caught.value).startswith(f"{root}: not a data set of persons' folders: it holds ")


def test_recognised_cuhk03_by_what_is_there(miniatures: Miniatures, tmp_path: Path) -> None:
    root = miniatures.cuhk03(tmp_path)
    (root / CONFIG.format("labeled")).unlink()
    assert recognise(root) == "cuhk03-detected"
    (root / CONFIG.format("detected")).unlink()
    assert recognise(root) == "cuhk03-labelled-classic"


def test_nothing_known_without_a_name(tmp_path: Path) -> None:
    market = f"Market-1501 with {MARKET_FOLDERS}"
    (tmp_path / "empty").mkdir()
    (tmp_path / "else" / "a").mkdir(parents=True)
    for name, message in (
        ("empty", f"the folder is empty; expected a data set, for example {market}"),
        ("absent", f"no such folder; pass the folder of a data set, for example {market}"),
        (
            "else",
            f"no data set that is known: it holds a; expected for example {market}, or another "
            "layout of docs/guide/datasets.md",
        ),
    ):
        with pytest.raises(InputError) as caught:
            check_dataset(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"
