"""Settings of a command in a file, over which the line wins: read, and written again."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sa_runtime.errors import InputError, MissingFileError
from sa_runtime.system.files import atomic_path

_PANEL = "Settings"
_OWN = {"config", "save_config", "verbose", "quiet", "log_json", "json_output"}
"""Parameters that say how a command speaks, not what it does."""


def _load(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        context.default_map = {**(context.default_map or {}), **read_settings(path, context)}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=_load,
        is_eager=True,
        rich_help_panel=_PANEL,
        help="TOML file with options and arguments of this command by their names, or the "
        "manifest of an earlier run; the line wins over it. None is read by default.",
    ),
]
SaveConfig = Annotated[
    Path | None,
    typer.Option(
        "--save-config",
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="TOML file that the settings of this run are written to; none by default.",
    ),
]


def read_settings(path: Path, context: Any) -> dict[str, Any]:
    """The values of a command's parameters by their Python names.

    Args:
        path: a TOML file, or a JSON one with the object ``settings``, as manifests are.
        context: of the command.

    Raises:
        InputError: no such file, not TOML, or a name or value that the command does not have.
    """
    known = {name_of(one): one for one in context.command.params if one.name not in _OWN}
    found: dict[str, Any] = {}
    for given, value in _values(path).items():
        name = given.replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"{path}: `sa-deploy {context.command.name}` has no option {given!r}{hint}",
                path=path,
            )
        parameter = known[name]
        if isinstance(value, Mapping) or not _fits(parameter, value):
            raise InputError(
                f"{path}: {given} = {json.dumps(value, default=str)}: {_expected(parameter)}",
                path=path,
            )
        many = _takes_many(parameter)
        found[parameter.name] = [value] if many and not isinstance(value, list) else value
    return found


def settings_of(context: Any) -> dict[str, Any]:
    """What a command was called with, by the names of its options, as JSON values."""
    found: dict[str, Any] = {}
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        if parameter.name in _OWN or value is None or value in ((), []):
            continue
        found[name_of(parameter)] = _plain(value)
    return found


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a TOML file that :func:`read_settings` reads.

    Raises:
        InputError: it cannot be written, or a text in it is not UTF-8.
    """
    # What JSON writes of these values is TOML as well.
    lines = [f"{name} = {_toml(value)}\n" for name, value in settings.items()]
    try:
        with atomic_path(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    except OSError as exc:
        raise InputError(f"{path}: cannot be written ({exc})", path=path) from exc


def name_of(parameter: Any) -> str:
    """The name of a parameter in a file: its long option without dashes, or the argument's."""
    if parameter.param_type_name == "argument":
        return str(parameter.name)
    return str(next(flag for flag in parameter.opts if flag.startswith("--"))[2:])


def _values(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise MissingFileError(
            f"{path}: no such file; expected settings, as --save-config writes them", path=path
        ) from exc
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc})", path=path) from exc
    try:
        text = data.decode()
        if path.suffix.lower() != ".json":
            return tomllib.loads(text)
        settings = json.loads(text)["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError("no settings in it")
        return settings
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(
            f"{path}: not settings that can be read ({exc}); expected TOML, as --save-config "
            "writes it, or the manifest of a run",
            path=path,
        ) from exc


def _takes_many(parameter: Any) -> bool:
    return bool(getattr(parameter, "multiple", False)) or parameter.nargs == -1


def _fits(parameter: Any, value: Any) -> bool:
    if isinstance(value, list):
        return _takes_many(parameter) and all(isinstance(one, str | int | float) for one in value)
    if getattr(parameter, "is_flag", False):
        return isinstance(value, bool)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _expected(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "expected true or false"
    return "expected a list of values" if _takes_many(parameter) else "expected one value"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float) else str(value)


def _toml(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InputError(f"{value!a}: not UTF-8, which TOML cannot hold; rename it") from exc
    return text
