"""Whether a folder is laid out as a data set, and if it is not, which path to pass instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sa_runtime.datasets.base import image_files, subfolders
from sa_runtime.errors import DatasetError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_DEPTH = 3
_SEARCHED_FOLDERS = 2000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a data set looks like on disk.

    Attributes:
        title: its name, for messages.
        forms: each form is a set of entries (files or folders, relative to the root) which are
            all there where the data set is; the first one is the usual one.
    """

    title: str
    forms: tuple[tuple[str, ...], ...]

    def fits(self, root: Path) -> bool:
        """Whether one of the forms is complete under ``root``."""
        return self.form(root) is not None

    def form(self, root: Path) -> tuple[str, ...] | None:
        """The first complete form under ``root``."""
        return next((f for f in self.forms if all((root / e).exists() for e in f)), None)


def require_layout(root: Path, layout: Layout) -> None:
    """Refuse a folder which is not the root of the data set, naming the path to pass instead.

    Raises:
        DatasetError: what is wrong, and what to do about it.
    """
    if not layout.fits(root):
        raise DatasetError(_problem(root, layout))


def no_images(folder: Path) -> DatasetError:
    """The error for a split folder without images."""
    for inner in subfolders(folder):
        if image_files(inner):
            return DatasetError(
                f"{folder}: its images lie one folder too low, in {inner}; move them up"
            )
    if archives := _archives(folder):
        return DatasetError(f"{folder}: no images, but the archive {archives[0]}; unpack it there")
    return DatasetError(
        f"{folder}: no images (.jpg, .jpeg, .png); copy or unpack the data set again"
    )


def _problem(root: Path, layout: Layout) -> str:
    title, usual = layout.title, _listed(layout.forms[0])
    if root.is_file():
        if root.name.lower().endswith(_ARCHIVES):
            return f"{root}: an archive; unpack it and pass the folder that holds {usual}"
        return f"{root}: a file; pass the folder of {title} that holds {usual}"
    if not root.is_dir():
        return f"{root}: no such folder; pass the folder of {title} that holds {usual}"
    if (partly := _missing(root, layout)) is not None:
        return partly
    for parent in list(root.absolute().parents)[:2]:
        if layout.fits(parent):
            return f"{root}: one folder too low; pass {_shown(parent, root)}, which is {title}"
    found = [folder for folder in _below(root) if layout.fits(folder)]
    if len(found) == 1:
        return f"{root}: one folder too high; pass {found[0]}, which is {title}"
    if found:
        return f"{root}: holds {title} {len(found)} times; pass one of {_listed(found)}"
    if archives := _archives(root):
        return f"{root}: holds the archive {archives[0].name}, not unpacked; unpack it there first"
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"{root}: the folder is empty; expected {title} with {usual}"
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{root}: not {title}: it holds {shown}; expected {usual}"


def _missing(root: Path, layout: Layout) -> str | None:
    """The message for a form of which only a part is there."""

    def present(form: tuple[str, ...]) -> int:
        return sum((root / entry).exists() for entry in form)

    form = max(layout.forms, key=present)
    if present(form) == 0 and not any(_alike(root, entry) for entry in form):
        return None
    if present(form) == 0 and any(layout.fits(folder) for folder in _below(root)):
        return None
    missing = [entry for entry in form if not (root / entry).exists()]
    for entry in missing:
        if (other := _alike(root, entry)) is None:
            continue
        if other.is_file() and other.name.lower().endswith(_ARCHIVES):
            return f"{root}: {entry} is missing, but its archive {other.name} is there; unpack it"
        return f"{root}: {entry} is missing, but {other.name!r} is there; rename it to {entry}"
    return (
        f"{root}: {_listed(missing)} missing; {layout.title} has {_listed(form)}. "
        "Copy or unpack the data set again"
    )


def _alike(root: Path, entry: str) -> Path | None:
    """A neighbour with the entry's name but for case, a copy's number or an archive's suffix."""
    wanted = _plain(entry)
    for path in sorted(root.iterdir()):
        if path.name != entry and _plain(path.name) == wanted:
            return path
    return None


def _plain(name: str) -> str:
    plain = name.lower()
    for suffix in _ARCHIVES:
        plain = plain.removesuffix(suffix)
    stem, dot, suffix = plain.partition(".")
    if stem.endswith(")") and " (" in stem:
        stem = stem[: stem.rindex(" (")]
    return stem.replace("-", "_").replace(" ", "_") + dot + suffix


def _below(root: Path) -> Iterator[Path]:
    """Folders under ``root``, nearest first, as deep and as many as a misplaced data set needs."""
    level, searched = [root], 0
    for _ in range(_DEPTH):
        level = [inner for folder in level for inner in subfolders(folder)]
        for folder in level:
            searched += 1
            if searched > _SEARCHED_FOLDERS:
                return
            yield folder


def _archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(_ARCHIVES))


def _listed(items: Iterable[object]) -> str:
    names = [str(item) for item in items]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _shown(parent: Path, root: Path) -> Path:
    """``parent`` spelt as the user spelt ``root``."""
    if root.is_absolute() or parent == Path.cwd():
        return parent if root.is_absolute() else Path(".")
    try:
        return parent.relative_to(Path.cwd())
    except ValueError:
        return parent
