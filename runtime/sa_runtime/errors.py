"""The one exception tree of the project.

Every class is also the built-in error that a Python program would catch anyway, named in brackets.

::

    SaDeployError                   anything a user can fix: one line, exit code 2
    ├── InputError                  [ValueError] a file, array or option that cannot be used
    │   ├── MissingFileError        [FileNotFoundError] a file or folder that is not there
    │   ├── DatasetError            a re-identification data set whose layout or content is wrong
    │   ├── DetectionError          a detection file that cannot be read
    │   ├── VideoError              a video that cannot be opened or decoded
    │   └── CheckpointError         weights that cannot be loaded
    ├── ContractError               [ValueError] no contract, a changed one, or another space
    ├── MissingPackageError         [ImportError] an optional package that is not installed
    ├── TrainingError               [RuntimeError] a training that cannot go on
    ├── BuildError                  [RuntimeError] an engine that could not be built
    ├── RunnerError                 [RuntimeError] a runtime that failed to open or run a model
    ├── GateError                   a result that a limit of the caller forbids: exit code 3
    │   ├── ParityError             an artefact that disagrees with its network
    │   └── RegressionError         a build that is slower than its base
    └── IncompleteError             [RuntimeError] finished with parts left out: exit code 4

A message names the offending thing, says what came and what was expected, and ends with the way
out. It speaks Python: a parameter stands in it as ``name=value``, first (see :func:`bad_value`) or
between backticks, as in "pass a smaller `batch_size`" or "go on with `resume=True`". The command
line (``sa_deploy.errors``) writes its own options in their place. A whole command line, which
anybody can run, stands between backticks too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

MOST_SHOWN = 80
"""So many characters of a file are quoted in a message at most."""


class SaDeployError(Exception):
    """Base of every error that a user can fix.

    What an error is about is kept when it is pickled, as between processes.

    Args:
        message: one line.
        path: the file or folder it is about.
        parameter: the Python parameter it is about.
        value: what that parameter was.
    """

    exit_code = 2

    def __init__(
        self,
        message: str = "",
        *,
        path: str | os.PathLike[str] | None = None,
        parameter: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message)
        self.path: str | None = None if path is None else os.fspath(path)
        self.parameter = parameter
        self.value = value


class InputError(SaDeployError, ValueError):
    """A file, array or option that cannot be used as given."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that is not there."""

    errno = errno.ENOENT

    @property
    def filename(self) -> str | None:
        """The same as ``path``, under the name that ``FileNotFoundError`` gives it."""
        return self.path


class DatasetError(InputError):
    """A re-identification data set whose layout or content is wrong."""


class DetectionError(InputError):
    """A detection file that cannot be read."""


class VideoError(InputError):
    """A video that cannot be opened or decoded."""


class CheckpointError(InputError):
    """Weights that cannot be loaded."""


class ContractError(SaDeployError, ValueError):
    """An artefact without a contract, with a changed one, or of another feature space."""


class MissingPackageError(SaDeployError, ImportError):
    """An optional package that is not installed.

    Args:
        message: one line.
        name: the import name of the package.
    """

    def __init__(self, message: str = "", *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class TrainingError(SaDeployError, RuntimeError):
    """A training that cannot go on."""


class BuildError(SaDeployError, RuntimeError):
    """An engine that could not be built."""


class RunnerError(SaDeployError, RuntimeError):
    """A runtime that failed while opening or running a model."""


class GateError(SaDeployError):
    """A result that is whole, but beyond a limit that the caller set."""

    exit_code = 3


class ParityError(GateError):
    """An artefact whose embeddings disagree with the network it was exported from."""


class RegressionError(GateError):
    """A build that is slower than its base."""


class IncompleteError(SaDeployError, RuntimeError):
    """Work that is finished, with parts of its input left out."""

    exit_code = 4


def bad_value(parameter: str, value: object, rule: str, *, prefix: str = "") -> InputError:
    """The error of a parameter that cannot be what it is.

    Args:
        parameter: its Python name.
        value: what it is.
        rule: what was expected, and the way out.
        prefix: what stands before it in the message.

    >>> bad_value("streams", 3, "expected 1 or 2")
    InputError('streams=3: expected 1 or 2')
    """
    text = f"{prefix}{parameter}={value!r}: {rule}"
    return InputError(text, parameter=parameter, value=value)


def check_fields(
    config: object, rules: Iterable[tuple[str, bool, str]], *, prefix: str = ""
) -> None:
    """Name the first field of a configuration that breaks its rule.

    Args:
        config: the configuration.
        rules: name of a field, whether its value is allowed, and what is, in words.
        prefix: what stands before the field in the message.

    Raises:
        InputError: a field breaks its rule.
    """
    for field, holds, rule in rules:
        if not holds:
            raise bad_value(field, getattr(config, field), f"expected {rule}", prefix=prefix)


def shown(text: str | bytes) -> str:
    """What a message quotes of a file: quoted, and of 80 characters at most.

    >>> shown("1,2,three")
    "'1,2,three'"
    >>> len(shown("x" * 5_000_000)) <= 82
    True
    """
    kept = text[: MOST_SHOWN + 1]
    if isinstance(kept, bytes):
        kept = kept.decode("utf-8", "backslashreplace")
    return repr(kept if len(kept) <= MOST_SHOWN else kept[: MOST_SHOWN - 1] + "…")
