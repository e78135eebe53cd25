"""What the project says about itself: its tables, lists and links, compared with the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sa_deploy

ROOT = Path(__file__).parents[1]
SOURCES = ("sa_deploy", "export", "training", "runtime", "benchmarks")
RUNTIME = ROOT / "runtime" / "sa_runtime"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def test_the_architecture_names_every_room_and_module_of_the_runtime() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))
    assert rooms == {path.parent.name for path in RUNTIME.glob("*/__init__.py")}
    loose = set(re.findall(r"^\| `(\w+)\.py` \|", text, re.MULTILINE))
    assert loose == modules(RUNTIME)


def test_every_path_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    found = re.findall(r"`((?:sa_\w+|runners|datasets|tests)/[\w/.]*)`", text)
    roots = [ROOT / name for name in ("", "export", "training", "runtime", "runtime/sa_runtime")]
    assert len(found) > 5
    for name in found:
        if "NAME" not in name:
            assert any((root / name).exists() for root in roots), f"ARCHITECTURE.md: no {name}"


def test_the_list_of_tensorrt_modules_is_complete() -> None:
    text = (RUNTIME / "tensorrt" / "__init__.py").read_text()
    assert set(re.findall(r"^``(\w+)``", text, re.MULTILINE)) == modules(RUNTIME / "tensorrt")


def links(page: Path) -> Iterator[str]:
    """Relative targets of a page's links and pictures; fences hold none."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            yield target.partition("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_exists(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), f"{page.name}: no {target}"


def test_pages_hold_links() -> None:
    """The pattern finds what it should: a page without links would pass unseen."""
    assert sum(len(list(links(page))) for page in PAGES) > 60


def test_sources_cite_documents_of_the_repository_only() -> None:
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"\bfacts:", text), path
            for cited in re.findall(r"\bdocs/[\w/]+\.(?:md|json)\b", text):
                assert (ROOT / cited).is_file(), f"{path}: no {cited}"


def bounds(requirements: list[str]) -> Iterator[tuple[str, str]]:
    for text in requirements:
        name, _, least = re.split(r"[;,]", text)[0].partition(">=")
        yield name.strip(), least.strip()


def test_the_lowest_versions_are_those_that_are_promised() -> None:
    promised = dict(bounds(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]))
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    installed = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert set(installed) == set(promised)
    for name, least in promised.items():
        assert f"{installed[name]}.".startswith(f"{least}."), name


def test_every_extra_stands_on_the_page_of_installing() -> None:
    text = (ROOT / "docs" / "guide" / "install.md").read_text()
    rows = re.findall(r"^\| (`[\w`, ]+`) \|", text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"\w+", row)]
    assert sorted(named) == sorted(set(PROJECT["optional-dependencies"]) - {"dev"})


def test_the_version_stands_in_the_readme_and_the_changes() -> None:
    version = PROJECT["version"]
    assert f"sa_deploy-{version}-py3-none-any.whl" in (ROOT / "README.md").read_text()
    assert f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text()


def test_the_reference_has_every_public_name_once() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = re.findall(r"^::: sa_deploy\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(set(sa_deploy.__all__) - {"__version__"})


def test_files_are_limited_in_one_place_which_spares_bytecode() -> None:
    found = [path for path in (ROOT / "tests").rglob("*.py") if "RLIMIT_FSIZE" in path.read_text()]
    assert [path.name for path in found if path != Path(__file__)] == ["file_limits.py"]


def test_the_fast_tests_are_there() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^FAST := (.*)$", text, re.MULTILINE)
    for word in line.replace("--ignore", "").split():
        assert (ROOT / word).exists(), f"Makefile: no {word}"


@pytest.mark.slow
def test_the_site_is_whole_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([*command, tmp_path], cwd=ROOT, env=environment, check=True)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        found = r'<(?:script|img|link|iframe)[^>]+(?:src|href)="?(https?:[^" >]+)'
        fetched = re.findall(found, page.read_text())
        assert not fetched, f"{page.name} fetches {fetched}"
