"""Object stores by address: ``s3://``, ``gs://`` and ``az://``, through fsspec.

A :class:`pathlib.Path` makes one slash of two; such an address is taken for what it was.
Credentials and endpoints are those that the stores' own libraries find, as ``AWS_ENDPOINT_URL``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sa_runtime.errors import InputError, MissingFileError, SaDeployError
from sa_runtime.system.extras import require
from sa_runtime.system.locking import owned

STORES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
}
"""Scheme -> package of its file system, and the extra that installs it."""
_ADDRESS = re.compile(rf"({'|'.join(STORES)}):/+([^/].*)", re.DOTALL)
_TOGETHER = 32
"""Files that are fetched at a time."""


def address_of(place: object) -> str | None:
    """The address that a text or path is; ``None`` for places of this machine.

    >>> address_of(Path("s3://bucket/a.mp4")), address_of("a.mp4")
    ('s3://bucket/a.mp4', None)
    """
    if not isinstance(place, (str, os.PathLike)):
        return None
    found = _ADDRESS.fullmatch(os.fspath(place))
    return f"{found[1]}://{found[2]}" if found else None


class Entry(NamedTuple):
    """A file of a store: its address, and its size in bytes."""

    address: str
    size_bytes: int


class Remote:
    """Files of the store that an address belongs to.

    Args:
        address: of a file or folder there.

    Raises:
        MissingPackageError: the package of the store is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._scheme = address.partition("://")[0]
        package, extra = STORES[self._scheme]
        require(package, extra=extra, purpose=f"the address {address}")
        fsspec = require("fsspec", extra=extra, purpose=f"the address {address}")
        # Whoever else writes there is to be seen.
        self._fs: Any = fsspec.filesystem(self._scheme, use_listings_cache=False)

    def below(self, name: str) -> str:
        """The address of a file in the folder."""
        return f"{self.address.rstrip('/')}/{name}"

    def entry(self, address: str) -> Entry | None:
        """A file; ``None`` where there is none."""
        with _named(address):
            try:
                found = self._fs.info(address)
            except FileNotFoundError:
                return None
        return None if found["type"] == "directory" else Entry(address, int(found["size"] or 0))

    def entries(self, pattern: str = "") -> list[Entry]:
        """The files below the folder, or those that a pattern with ``*`` finds, by name."""
        with _named(self.address):
            if pattern:
                found = self._fs.glob(pattern, detail=True)
            else:
                found = self._fs.find(self.address, detail=True)
        files = [one for one in found.values() if one["type"] != "directory"]
        entries = [Entry(self._full(one["name"]), int(one["size"] or 0)) for one in files]
        return sorted(entries)

    def read(self, address: str) -> bytes | None:
        """The content of a small file; ``None`` where there is none."""
        with _named(address):
            try:
                data: bytes = self._fs.cat_file(address)
            except FileNotFoundError:
                return None
            return data

    def fetch(self, addresses: Sequence[str], paths: Sequence[Path]) -> None:
        """Copy files here.

        Raises:
            MissingFileError: one that is not there.
        """
        for start in range(0, len(addresses), _TOGETHER):
            some = addresses[start : start + _TOGETHER]
            with _named(some[0]):
                self._fs.get(list(some), [str(path) for path in paths[start : start + _TOGETHER]])

    def put(self, path: Path, address: str) -> None:
        """Copy a file there, where it appears as a whole."""
        with _named(address, "written"):
            self._fs.put_file(str(path), address)

    def remove(self, addresses: Sequence[str]) -> None:
        """Remove files that may be there."""
        for address in addresses:
            with _named(address, "removed"), suppress(FileNotFoundError):
                self._fs.rm_file(address)

    def _full(self, name: str) -> str:
        return f"{self._scheme}://{name.lstrip('/')}"


@contextmanager
def _named(address: str, what: str = "read") -> Iterator[None]:
    """Say of which address an error of a store is, whatever its library raises."""
    try:
        yield
    except SaDeployError:
        raise
    except FileNotFoundError as exc:
        raise MissingFileError(f"{address}: no such file or folder in the store") from exc
    except Exception as exc:
        said = " ".join(str(exc).split()) or type(exc).__name__
        raise InputError(
            f"{address}: cannot be {what} ({said}); check the address, the credentials and the "
            "endpoint of the store"
        ) from exc


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder for copies, removed at the end, as are those of processes that were killed."""
    home = _home()
    for left in home.glob("copies-*"):
        with suppress(InputError, OSError), owned(left, folder=True):
            shutil.rmtree(left)
    folder = home / f"copies-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with owned(folder, folder=True):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def staging(address: str) -> Path:
    """The folder of this machine in which files for an address are written before they are sent."""
    return _home() / f"staged-{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def fetched_model(address: str, folder: Path) -> Path:
    """Copy a model here, with the files that stand beside it under its name.

    Raises:
        MissingFileError: there is none.
    """
    remote = Remote(address.rpartition("/")[0])
    name = PurePosixPath(address).name
    if remote.entry(address) is None:
        raise MissingFileError(f"{address}: no such file in the store; expected a model")
    stem = name.partition(".")[0]
    beside = [
        entry.address
        for entry in remote.entries(remote.below(f"{stem}*"))
        if PurePosixPath(entry.address).name.partition(".")[0] == stem
    ]
    remote.fetch(beside, [folder / PurePosixPath(one).name for one in beside])
    return folder / name


def _home() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(tempfile.gettempdir()) / f"sa-deploy-{user}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != user:
        raise InputError(f"{home}: is not ours; set TMPDIR to a folder of yours", path=home)
    return home
