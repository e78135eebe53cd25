"""The models of a service by name: opened, proven by their canary, swapped while requests run."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sa_runtime.artefact.contract import Contract
from sa_runtime.errors import ContractError, InputError, bad_value, shown
from sa_runtime.runners.base import Runner
from sa_runtime.runners.opening import open_runner
from sa_runtime.service.batcher import Batcher
from sa_runtime.service.canary import canary_cosine, known_canary
from sa_runtime.service.drift import known_reference
from sa_runtime.service.limits import LARGEST, Limits
from sa_runtime.service.refusals import RefusedError
from sa_runtime.service.tickets import BatchReport

_log = logging.getLogger(__name__)
_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How every model of a service is opened.

    Attributes:
        runtime: name of a runtime, or ``auto``.
        options: of the runner.
        batch_size: crops in a batch at most.
        max_delay_ms: how long a crop waits for others.
        lanes: batches that are run at a time.
        limits: of the service.
    """

    runtime: str = "auto"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 32
    max_delay_ms: float = 5.0
    lanes: int = 1
    limits: Limits = dataclasses.field(default_factory=Limits)

    def check(self) -> None:
        """Refuse a delay that a request does not outlast: whoever asks alone had no answer.

        Raises:
            InputError: it is one.
        """
        most = self.limits.timeout_ms
        if most <= self.max_delay_ms < LARGEST:
            rule = f"expected less than `timeout_ms` {most:g}"
            raise bad_value("max_delay_ms", self.max_delay_ms, rule)


@dataclasses.dataclass(kw_only=True)
class Statistics:
    """What a model has done since it was opened; seconds are sums over requests."""

    requests: int = 0
    failures: int = 0
    crops: int = 0
    batches: int = 0
    request_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    last: float = 0.0
    sizes: Counter[int] = dataclasses.field(default_factory=Counter)
    size_s: Counter[int] = dataclasses.field(default_factory=Counter)


class Served:
    """An open model and the queue before it.

    A swap closes it once nobody uses it: ``with served:``, on the thread of the event loop.

    Attributes:
        name: that requests call it by.
        path: of the artefact.
        version: 1, and one more with every swap.
        users: that are in such a block.
        healthy: whether its last canary passed.
        cosine: of that canary.
        fault: what its last canary said; empty where it passed.
        reference: statistics of its vectors, where its artefact holds them.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        runner: Runner,
        settings: ModelSettings,
        *,
        version: int = 1,
        on_batch: Callable[[Served, BatchReport], None] = lambda served, report: None,
    ) -> None:
        self.name, self.path, self.runner, self.version = name, path, runner, version
        self.statistics = Statistics()
        self.healthy, self.cosine, self.fault = False, 0.0, ""
        self.users = 0
        self._on_batch = on_batch
        # Read at once: the file may be another one soon.
        self._canary, self.reference = known_canary(runner), known_reference(runner)
        self.check()
        self.batcher = Batcher(
            runner,
            batch_size=settings.batch_size,
            max_delay_ms=settings.max_delay_ms,
            queue_crops=settings.limits.queue_crops,
            lanes=settings.lanes,
            on_batch=self._note_batch,
        )

    def __enter__(self) -> Served:
        self.users += 1
        return self

    def __exit__(self, *of_error: object) -> None:
        self.users -= 1

    @property
    def contract(self) -> Contract:
        """What it expects and what its vectors mean."""
        return self.runner.contract

    def check(self) -> None:
        """Embed the canary crops.

        Raises:
            RunnerError: their vectors are not the known ones.
        """
        try:
            self.cosine = canary_cosine(self.runner, self._canary)
        except Exception as exc:
            self.healthy, self.fault = False, str(exc) or type(exc).__name__
            raise
        self.healthy, self.fault = True, ""

    def close(self) -> None:
        """Run what waits, then close the model."""
        self.batcher.close()
        self.runner.close()

    def _note_batch(self, report: BatchReport) -> None:
        found = self.statistics
        found.batches += 1
        found.crops += report.crops
        found.sizes[report.crops] += 1
        found.size_s[report.crops] += report.seconds  # type: ignore[assignment]  # a float
        if report.error:
            _log.error("%s: %d crops failed: %s", self.name, report.failed, report.error)
        self._on_batch(self, report)


class Models:
    """The models of a service.

    Args:
        files: artefacts by the name that requests call them by; the first is taken where a
            request names none.
        settings: how they are opened.

    Attributes:
        on_batch: told of every batch, in the thread that ran it.
    """

    def __init__(self, files: dict[str, Path], settings: ModelSettings) -> None:
        self.files, self.settings = files, settings
        self.on_batch: Callable[[Served, BatchReport], None] = lambda served, report: None
        self._served: dict[str, Served] = {}
        self._swapping = asyncio.Lock()

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    @property
    def ready(self) -> bool:
        """Whether every model is open and its canary passed."""
        return len(self._served) == len(self.files) and all(s.healthy for s in self)

    def open(self) -> None:
        """Open all that are not open.

        Raises:
            SaDeployError: one cannot be opened, or its canary crops come out wrong.
        """
        for name, path in self.files.items():
            if name not in self._served:
                self._served[name] = self._opened(name, path, 1)

    def close(self) -> None:
        """Run what waits, then close all."""
        for served in list(self):
            served.close()
        self._served.clear()

    def get(self, name: str = "", version: str = "") -> Served:
        """A model by name, the first where that is empty.

        Raises:
            RefusedError: no such model or version, or not open yet.
        """
        name = name or next(iter(self.files))
        if name not in self.files:
            known = ", ".join(self.files)
            raise RefusedError(404, f"no model {name[:80]!r}; expected one of {known}")
        if name not in self._served:
            raise RefusedError(503, f"model {name!r} is being opened", retry_after_s=1)
        served = self._served[name]
        if version and version != str(served.version):
            raise RefusedError(404, f"{name} has version {served.version}, not {version[:20]!r}")
        return served

    async def reload(self, name: str, *, any_space: bool = False) -> Served:
        """Open a model's file again and put it in the place of the one that runs.

        Requests in flight are answered by the old one, those that come later by the new one.

        Args:
            name: of the model.
            any_space: take a file whose vectors do not compare with those before, too.

        Raises:
            ContractError: another space, or other shapes than ``any_space`` allows.
            SaDeployError: the file cannot be opened, or its canary crops come out wrong; the old
                model goes on.
        """
        async with self._swapping:
            old = self.get(name)
            new = await asyncio.to_thread(self._successor, old, any_space)
            self._served[old.name] = new
        _log.info("%s: version %d takes over", new.name, new.version)
        while old.users:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(old.close)
        return new

    def _successor(self, old: Served, any_space: bool) -> Served:
        new = self._opened(old.name, old.path, old.version + 1)
        if new.contract.space != old.contract.space and not any_space:
            new.close()
            raise ContractError(
                f"{old.path}: holds vectors of space {new.contract.space}, the model that runs "
                f"those of {old.contract.space}: they do not compare. Pass any_space=true where "
                "nothing stored is to be compared with them"
            )
        return new

    def _opened(self, name: str, path: Path, version: int) -> Served:
        settings = self.settings
        runner = open_runner(path, settings.runtime, **settings.options)
        try:
            return Served(
                name,
                path,
                runner,
                settings,
                version=version,
                on_batch=lambda one, report: self.on_batch(one, report),
            )
        except BaseException:
            runner.close()
            raise


def named_files(models: Sequence[str]) -> dict[str, Path]:
    """Artefacts by the names that requests call them by.

    Args:
        models: ``FILE``, called by its stem, or ``NAME=FILE``; what is there as it stands is a
            file, whatever it is called.

    Raises:
        InputError: none, two of one name, or a name that does not go into an address.

    >>> named_files(["runs/sa.onnx", "small=runs/thin.onnx"])
    {'sa': PosixPath('runs/sa.onnx'), 'small': PosixPath('runs/thin.onnx')}
    """
    found: dict[str, Path] = {}
    for given in models:
        name, equals, file = given.partition("=")
        if not equals or "/" in name or Path(given).is_file():
            name, path = Path(given).stem, Path(given)
        else:
            path = Path(file)
        if _NAME.fullmatch(name) is None:
            raise InputError(
                f"{given}: requests would have to call it {shown(name)}; give it a name of "
                "letters, digits and . _ - with NAME=FILE"
            )
        if name in found:
            raise InputError(
                f"{path}: a second model called {name!r}; give it another name with NAME={path}"
            )
        found[name] = path
    if not found:
        raise InputError("no model to serve; expected at least one")
    return found


def note_answer(served: Served, *, seconds: float, queue_s: float, infer_s: float) -> None:
    """Count a request that was answered."""
    found = served.statistics
    found.requests += 1
    found.request_s += seconds
    found.queue_s += queue_s
    found.infer_s += infer_s
    found.last = time.time()
