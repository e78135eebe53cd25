"""Folders and files in object stores, where a file appears when all of it is there.

What a run writes stands in a folder of this machine until it is sent. The manifest is sent last, so
that it names only files that are there. Stores have no locks: a second run on this machine is
refused, one elsewhere is noticed when it has replaced the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from sa_runtime.arrays import Embeddings
from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.items import Row
from sa_runtime.outputs.base import Output, OutputKind, OutputOptions, Progress, StoredEmbeddings
from sa_runtime.outputs.folder import ShardFolder
from sa_runtime.outputs.manifest import MANIFEST, Manifest, Shard
from sa_runtime.outputs.partition import part_number
from sa_runtime.outputs.table import FOLDER, lasts, output_kind
from sa_runtime.system.locking import owned
from sa_runtime.system.remote import Remote, staging, workspace


class RemoteFolder(ShardFolder):
    """A folder of Parquet files in a store; see :class:`sa_runtime.outputs.folder.ShardFolder`.

    Args:
        address: of the folder.
        contract: of the model.
        options: see there.
    """

    def __init__(self, address: str, contract: Contract, options: OutputOptions) -> None:
        self._remote = Remote(address.rstrip("/"))
        self._seen: bytes | None = None
        self._resume = options.resume
        self._sent: set[str] = set()
        super().__init__(staging(self._remote.address), contract, options)

    @classmethod
    def check(cls, target: Path, *, resume: bool) -> None:
        """Nothing: what stands here is ours, and is compared with the store."""

    def commit(self, progress: Progress) -> None:
        """Send the new files, then the manifest.

        Raises:
            InputError: another run has replaced the manifest meanwhile.
        """
        for shard in self.manifest.shards:
            if shard.file not in self._sent:
                self._remote.put(self.path / shard.file, self._remote.below(shard.file))
                self._sent.add(shard.file)
        super().commit(progress)
        for shard in self.manifest.shards:
            (self.path / shard.file).unlink(missing_ok=True)

    def stored(self, start: int) -> Iterator[tuple[Sequence[Row], Embeddings]]:
        """The rows from a number on, in order, with their vectors."""
        files = [shard.file for shard in self.manifest.shards]
        for name in files:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        self._remote.fetch(
            [self._remote.below(name) for name in files], [self.path / name for name in files]
        )
        yield from super().stored(start)
        for name in files:
            (self.path / name).unlink()

    def files(self) -> list[Path | str]:
        """Addresses of the finished files, in order."""
        return [self._remote.below(shard.file) for shard in self.manifest.shards]

    def size_bytes(self) -> int:
        """Of the files."""
        return sum(shard.size_bytes for shard in self.manifest.shards)

    def _read_manifest(self) -> Manifest | None:
        address = self._remote.below(MANIFEST)
        self._seen = self._remote.read(address)
        if self._seen is None:
            if any(entry.address.endswith(".parquet") for entry in self._remote.entries()):
                raise InputError(
                    f"{self._remote.address}: holds Parquet files of others; choose another `out`"
                )
            return None
        (self.path / MANIFEST).write_bytes(self._seen)
        manifest = Manifest.read(self.path, name=address)
        if not self._resume:
            raise InputError(
                f"{self._remote.address}: holds {manifest.rows} rows of an earlier run; go on with "
                "it with `resume=True`, or choose another `out`"
            )
        return manifest

    def _write_manifest(self) -> None:
        address = self._remote.below(MANIFEST)
        if self._remote.read(address) != self._seen:
            raise InputError(
                f"{self._remote.address}: another run has written into it meanwhile; let one of "
                "them go on with `resume=True`"
            )
        super()._write_manifest()
        self._remote.put(self.path / MANIFEST, address)
        self._seen = (self.path / MANIFEST).read_bytes()

    def _check_files(self, shards: Sequence[Shard]) -> None:
        there = {entry.address: entry.size_bytes for entry in self._remote.entries()}
        for shard in shards:
            address = self._remote.below(shard.file)
            if there.get(address) != shard.size_bytes:
                raise InputError(
                    f"{address}: a finished file is gone or was changed; choose another `out`"
                )
            self._sent.add(shard.file)
        # What was sent, but has no place in the manifest.
        named = {self._remote.below(shard.file) for shard in shards}
        self._remote.remove(
            [
                address
                for address in there
                if address not in named and part_number(Path(address)) is not None
            ]
        )
        for left in [*self.path.rglob("*.parquet"), *self.path.rglob(".*.partial*")]:
            left.unlink(missing_ok=True)


class RemoteFile:
    """One file in a store, which appears when all is embedded.

    Args:
        address: of the file.
        contract: of the model.
        options: see there.
    """

    part_rows: int | None = None

    def __init__(self, address: str, contract: Contract, options: OutputOptions) -> None:
        self._remote = Remote(address)
        folder = staging(address)
        with ExitStack() as stack:
            stack.enter_context(owned(folder, folder=True))
            self._path = folder / PurePosixPath(address).name
            self._path.unlink(missing_ok=True)
            self._inner: Output = output_kind(self._path)(self._path, contract, options)
            self._ownership = stack.pop_all()
        self._size_bytes = 0

    @property
    def progress(self) -> Progress:
        """What is stored."""
        return self._inner.progress

    @contextmanager
    def part(self) -> Iterator[object]:
        """The whole file."""
        with self._inner.part() as writer:
            yield writer
        self._size_bytes = self._inner.size_bytes()
        self._remote.put(self._path, self._remote.address)
        self._path.unlink()

    def commit(self, progress: Progress) -> None:
        """Remember it for as long as the run lasts."""
        self._inner.commit(progress)

    def files(self) -> list[Path | str]:
        """The address."""
        return [self._remote.address]

    def size_bytes(self) -> int:
        """Of the file."""
        return self._size_bytes

    def close(self) -> None:
        """Let the next run own the address, on this machine."""
        self._inner.close()
        self._ownership.close()


def remote_kind(address: str) -> OutputKind:
    """The kind of what an address names, as it is written here first.

    Raises:
        InputError: what is not written to stores: databases, and unknown suffixes.
    """
    suffix = "" if address.endswith("/") else PurePosixPath(address).suffix
    kind = output_kind(f"x{suffix}" if suffix else FOLDER)
    if lasts(kind) and suffix:
        raise bad_value(
            "out", address, "a database is written to a folder of this machine; copy it afterwards"
        )
    return kind


def open_remote(address: str, contract: Contract, options: OutputOptions) -> Output:
    """Open an output in a store."""
    return (RemoteFolder if lasts(remote_kind(address)) else RemoteFile)(address, contract, options)  # type: ignore[return-value]


def read_remote(address: str, *, unfinished: bool) -> Sequence[StoredEmbeddings]:
    """What is stored under an address, copied here to be read.

    Raises:
        MissingFileError: there is nothing.
    """
    kind = remote_kind(address)
    remote = Remote(address.rstrip("/"))
    with workspace() as folder:
        if not lasts(kind):
            copy = folder / PurePosixPath(address).name
            remote.fetch([address], [copy])
            return kind.read(copy, unfinished=unfinished)
        home = folder / "folder"
        home.mkdir()
        remote.fetch([remote.below(MANIFEST)], [home / MANIFEST])
        files = [shard.file for shard in Manifest.read(home).shards]
        for name in files:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
        remote.fetch([remote.below(name) for name in files], [home / name for name in files])
        return kind.read(home, unfinished=unfinished)
