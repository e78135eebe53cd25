"""Whether a folder is laid out as a data set, and if it is not, which path to pass instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from sa_runtime.datasets.base import image_files, subfolders
from sa_runtime.errors import DatasetError, InputError, MissingFileError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_DEPTH = 3
_SEARCHED_FOLDERS = 2000


class Fault(IntEnum):
    """What is wrong with a folder, the most telling first."""

    MISPLACED = 0
    INCOMPLETE = 1
    UNUSABLE = 2
    OTHER = 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a data set looks like on disk.

    Attributes:
        title: its name, for messages.
        forms: each form is a set of entries (files or folders, relative to the root) which are
            all there where the data set is; the first one is the usual one.
        other_names: names that people give to an entry instead of its own.
        mend: what to do where entries are missing.
    """

    title: str
    forms: tuple[tuple[str, ...], ...]
    other_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mend: str = "Copy or unpack the data set again"

    @property
    def expected(self) -> str:
        """The usual form in words."""
        return listed(self.forms[0])

    def form(self, root: Path) -> tuple[str, ...] | None:
        """The first complete form under ``root``."""
        return next((f for f in self.forms if all((root / e).exists() for e in f)), None)

    def fits(self, root: Path) -> bool:
        """Whether a form is complete under ``root``."""
        return self.form(root) is not None

    def above(self, root: Path) -> Path | None:
        """The root of the data set, where the folder given lies inside of it."""
        for depth, parent in enumerate(list(root.absolute().parents)[:2]):
            if self.fits(parent):
                return spelt(root, depth)
        return None

    def share(self, root: Path) -> float:
        """How much of the nearest form is there, 0 to 1."""
        return max(_share(root, form) for form in self.forms)

    def incomplete(self, root: Path) -> str | None:
        """What is missing, where a part of the data set is there."""

        forms = sorted(self.forms, key=lambda form: -_share(root, form))
        for entry in (entry for form in forms for entry in form if not (root / entry).exists()):
            other = self._misnamed(root, entry)
            if other is None:
                continue
            if other.is_file() and other.name.lower().endswith(ARCHIVES):
                return f"{root}: no {entry}, but its archive {other.name}; unpack it there"
            return f"{root}: no {entry}, but {other.name!r}; rename it to {entry}"
        if not self.share(root):
            return None
        missing = [entry for entry in forms[0] if not (root / entry).exists()]
        needed = f"{self.title} has {listed(forms[0])}"
        return f"{root}: no {' and no '.join(missing)}; {needed}. {self.mend}"

    def _misnamed(self, root: Path, entry: str) -> Path | None:
        """A neighbour that is the entry but for case, a copy's number, an archive's suffix."""
        folder, name = (root / entry).parent, Path(entry).name
        if not folder.is_dir():
            return None
        wanted = {_plain(name), *self.other_names.get(entry, ())}
        for path in sorted(folder.iterdir()):
            if path.name != name and _plain(path.name) in wanted:
                return path
        return None


def require_layout(root: Path, layout: Layout) -> None:
    """Refuse a folder which is not the root of the data set, naming the path to pass instead.

    Raises:
        MissingFileError: there is no such folder.
        DatasetError: what is wrong, and what to do about it.
    """
    if not layout.fits(root):
        raise refusal(root, diagnose(root, layout)[1])


def refusal(root: Path, text: str) -> InputError:
    """The error of a folder that is no data set, or is not there."""
    kind = DatasetError if root.exists() else MissingFileError
    return kind(text, path=root)


def diagnose(root: Path, layout: Layout) -> tuple[Fault, str]:
    """Why a folder is not the root of the data set, as a message with the way out."""
    title, expected = layout.title, layout.expected
    if (unusable := unusable_folder(root, f"{title} with {expected}")) is not None:
        return Fault.UNUSABLE, unusable
    if (above := layout.above(root)) is not None:
        return Fault.MISPLACED, f"{root}: inside of {title}; pass {above}"
    found = [folder for folder in _below(root) if layout.fits(folder)]
    if len(found) == 1:
        return Fault.MISPLACED, f"{root}: {title} lies inside of it; pass {found[0]}"
    if found:
        return (
            Fault.MISPLACED,
            f"{root}: {title} lies inside of it {len(found)} times; pass one "
            + (f"of {listed(found)}"),
        )
    if (incomplete := layout.incomplete(root)) is not None:
        return Fault.INCOMPLETE, incomplete
    if archives := _archives(root):
        return Fault.UNUSABLE, (
            f"{root}: the archive {archives[0].name} is not unpacked; unpack it there first"
        )
    return Fault.OTHER, f"{root}: not {title}: it holds {contents(root)}; expected {expected}"


def unusable_folder(root: Path, expected: str) -> str | None:
    """What is wrong with a path that cannot be any data set: absent, a file, or empty."""
    if root.is_file():
        if root.name.lower().endswith(ARCHIVES):
            return f"{root}: an archive; unpack it and pass the folder of {expected}"
        return f"{root}: a file; pass the folder of {expected}"
    if not root.is_dir():
        return f"{root}: no such folder; pass the folder of {expected}"
    if not any(not entry.name.startswith(".") for entry in root.iterdir()):
        return f"{root}: the folder is empty; expected {expected}"
    return None


def no_images(folder: Path) -> DatasetError:
    """The error for a split folder without images."""
    for inner in subfolders(folder):
        if image_files(inner):
            return DatasetError(f"{folder}: its images lie in {inner}; move them one folder up")
    if archives := _archives(folder):
        return DatasetError(f"{folder}: no images, but {archives[0].name}; unpack it there")
    return DatasetError(
        f"{folder}: no images (.jpg, .jpeg, .png); copy or unpack the data set again"
    )


def contents(folder: Path) -> str:
    """The first few names in a folder, in words."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return listed(names)


def listed(items: Iterable[object]) -> str:
    """Several things in words.

    >>> listed("abc"), listed("a")
    ('a, b and c', 'a')
    """
    names = [str(item) for item in items]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def spelt(root: Path, depth: int) -> Path:
    """The ``depth``-th parent of a path (0 the nearest), relative where the path is.

    >>> spelt(Path("data/market/query"), 0).as_posix(), spelt(Path("query"), 0).as_posix()
    ('data/market', '.')
    """
    if len(root.parts) > depth and ".." not in root.parts:
        return root.parents[depth]
    return root.resolve().parents[depth]


def _share(root: Path, form: tuple[str, ...]) -> float:
    return sum((root / entry).exists() for entry in form) / len(form)


def _plain(name: str) -> str:
    plain = name.lower()
    for suffix in ARCHIVES:
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
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(ARCHIVES))
