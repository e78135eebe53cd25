"""The one door through which every error leaves the command line: one line, and an exit code.

The floors below speak Python: ``runtime='x': unknown``, "pass a smaller `batch_size`". Here the
parameters of the command that runs become its options: ``--runtime x``, "--batch-size".
"""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

from sa_runtime.errors import InputError, SaDeployError
from sa_runtime.system.extras import known_package

DEBUG_VARIABLE = "SA_DEPLOY_DEBUG"
"""Set to 1, known errors show their traceback too."""
DEFECT = 1
"""Exit code of an error that nobody foresaw; those of the others stand in their classes."""

_MARKED = re.compile(r"`([a-z_][\w.]*)(?:=([^`]*))?`")
_ALIASES = {
    "address": "ray_address",
    "batch": "batch_size",
    "connect_timeout_s": "server_timeout",
    "delay_us": "max_delay_us",
    "embeddings": "embedding",
    "fields": "set",
    "image": "image_input",
    "images_per_camera": "images",
    "log_every": "print_freq",
    "names": "dataset",
    "network.backbone": "arch",
    "backbone": "arch",
    "people_per_video": "people",
    "seconds": "duration",
    "target": "int8_target",
    "timeout_s": "server_timeout",
    "video_seconds": "seconds",
    "workers": "ray_workers",
    "workspace_gib": "workspace",
}
"""Parameters of the floors whose option has another name."""
_TROUBLES = {
    errno.ENOSPC: "no space is left on the disk; free some, or write to another one",
    errno.EDQUOT: "the disk quota is used up; free some space, or write to another disk",
    errno.EFBIG: "larger than a file may be here; see `ulimit -f`, or write to another disk",
    errno.EROFS: "the file system is read-only; write to another folder",
    errno.EACCES: "permission denied; choose another path, or change its permissions",
    errno.EPERM: "the system does not permit it; choose another path",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "a folder; expected a file",
    errno.ENOTDIR: "a file stands where a folder is expected",
    errno.EEXIST: "exists already; choose another name",
    errno.ENAMETOOLONG: "longer than a name may be here; choose a shorter one",
    errno.ELOOP: "its symbolic links go round in a circle",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
    errno.ENOMEM: "not enough memory; free some, or choose smaller batches",
}
"""What the system's most frequent errors mean, with the way out."""


class InterruptedByUserError(SaDeployError):
    """Ctrl-C."""

    exit_code = 130


def report(error: BaseException, root: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Say on stderr what went wrong.

    Args:
        error: what the command raised.
        root: makes the command line's root command.
        arguments: the words behind the program's name.

    Returns:
        The exit code: of the error's class where it is known, 1 for a defect, which keeps its
        traceback.
    """
    known = known_error(error)
    if known is None or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    if known is None:
        _print_error(
            f"a defect of sa-deploy {_version()}; please report it at {_tracker()} with the lines "
            "above and the command"
        )
        return DEFECT
    command = None
    # A command whose module does not even load has no options; its error is the one to tell.
    with suppress(Exception):
        command = running_command(root(), arguments)
    _print_error(for_command(known, command))
    return known.exit_code


def known_error(error: BaseException) -> SaDeployError | None:
    """An error as one that a user can mend; ``None`` for a defect.

    >>> known_error(OSError(28, "No space left on device", "out.parquet"))
    InputError('out.parquet: no space is left on the disk; free some, or write to another one')
    >>> known_error(ZeroDivisionError()) is None
    True
    """
    if isinstance(error, SaDeployError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return InterruptedByUserError("interrupted")
    if isinstance(error, ModuleNotFoundError):
        return known_package(error)
    if isinstance(error, BrokenPipeError):
        return InputError(
            "the reader of a pipe went away before all was written, as `head` does; files that "
            "are finished are whole"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _system_error(error)
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return InputError(
            f"{_name_around(error)!r}: a name that is not UTF-8; rename the file or folder, for "
            "example with `convmv -t utf8`"
        )
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        said = " ".join(str(error).split())[:120]
        return InputError(
            f"not enough memory{f' ({said})' if said else ''}; pass a smaller `batch_size`, or "
            "free some"
        )
    return None


def running_command(root: Any, arguments: Sequence[str]) -> Any:
    """The command that the words behind the program's name call; a group where they end in one."""
    command = root
    for word in arguments:
        children: Mapping[str, Any] | None = getattr(command, "commands", None)
        if children is None:
            break
        if word.startswith("-"):
            continue
        if word not in children:
            break
        command = children[word]
    return command


def for_command(error: SaDeployError, command: Any) -> str:
    """The message of an error with the options of a command for the parameters that it names.

    Parameters that the command does not have stay as they are.

    Args:
        error: from the floors.
        command: a click command.
    """
    options = _options(command)
    text = str(error)
    lead = f"{error.parameter}={error.value!r}"
    option = options.get(error.parameter or "")
    if option is not None and lead in text:
        before, _, behind = text.partition(lead)
        return _marked(before, options) + _spelt(option, error.value) + _marked(behind, options)
    return _marked(text, options)


def _marked(text: str, options: Mapping[str, Any]) -> str:
    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in options:
            return match[0]
        return _flag(options[name]) if value is None else _spelt(options[name], _value(value))

    return _MARKED.sub(option, text)


def _options(command: Any) -> dict[str, Any]:
    """Parameters of a command by their Python name and by that of their long option."""
    parameters = list(getattr(command, "params", ()))
    found = {parameter.name: parameter for parameter in parameters}
    for parameter in parameters:
        for flag in parameter.opts:
            found.setdefault(flag.lstrip("-").replace("-", "_"), parameter)
    for name, other in _ALIASES.items():
        if other in found:
            found.setdefault(name, found[other])
    return found


def _flag(parameter: Any, *, off: bool = False) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    flags: list[str] = parameter.secondary_opts if off else parameter.opts
    return next((flag for flag in flags if flag.startswith("--")), flags[0])


def _spelt(parameter: Any, value: object) -> str:
    """An option as it is typed, with its value.

    Texts that are no Python value, as in `detections=FILE`, stay as they are.
    """
    if value is True:
        return _flag(parameter)
    if value is False and parameter.secondary_opts:
        return _flag(parameter, off=True)
    if value is False or value is None:
        return f"no {_flag(parameter)}"
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, list | tuple):
        value = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{_flag(parameter)} {shlex.quote(str(value))}"


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _system_error(error: OSError) -> InputError:
    """An error of the operating system, with the way out where one is known."""
    number = error.errno or 0
    trouble = _TROUBLES.get(number) or error.strerror or os.strerror(number)
    names = [os.fspath(name) for name in (error.filename, error.filename2) if name is not None]
    where = "".join(f"{name!s}: " for name in names[-1:] if not isinstance(name, int))
    return InputError(f"{where}{trouble}", path=names[-1] if where else None)


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's own: it raises RuntimeError where the processor's memory ends."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )


def _name_around(error: UnicodeEncodeError) -> str:
    """The file's name that a text which cannot be encoded holds."""
    start = error.object.rfind("/", 0, error.start) + 1
    return error.object[start : start + 80].partition("/")[0]


def _print_error(text: str) -> None:
    from sa_deploy.output import print_error

    print_error(text.encode("utf-8", "backslashreplace").decode())


def _version() -> str:
    import sa_deploy

    return sa_deploy.__version__


def _tracker() -> str:
    """Where this installation says that errors are reported."""
    for entry in metadata.metadata("sa-deploy").get_all("Project-URL") or []:
        label, _, url = entry.partition(", ")
        if label.lower() in ("issues", "bug tracker", "tracker"):
            return str(url)
    return "the project's issue tracker"
