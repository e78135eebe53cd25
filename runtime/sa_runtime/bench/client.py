"""The other end of :mod:`sa_runtime.bench.worker`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, Self

from sa_runtime import errors

COMMAND: tuple[str, ...] = (sys.executable, "-m", "sa_runtime.bench.worker")


class Client:
    """A worker process.

    Args:
        command: what starts the process.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Have a method of the worker called and wait for its answer.

        Raises:
            SaDeployError: what the worker raised, of the same class.
            RunnerError: the process died, for example because a runtime crashed.
        """
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps({"do": do, **request}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise errors.RunnerError(
                f"the measuring process ended with code {self._process.wait()} during {do!r}; "
                "its own words stand above"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind: type[errors.SaDeployError] = getattr(errors, answer["error"])
            error = kind(answer["text"])
            error.parameter, error.value = answer["parameter"], answer["value"]
            raise error
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            stdin, _ = self._pipes()
            stdin.close()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in self._pipes():
            with suppress(BrokenPipeError):  # what a dead process has not read
                pipe.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
