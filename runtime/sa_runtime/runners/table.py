"""Runtimes by name. Looking one up imports that one module."""

from __future__ import annotations

import inspect
import logging
import time
from pathlib import Path
from typing import Any

from sa_runtime.artefact.formats import FORMATS
from sa_runtime.errors import InputError, MissingFileError, bad_value
from sa_runtime.runners.base import BaseRunner
from sa_runtime.system.extras import require

_log = logging.getLogger(__name__)

RUNNERS: dict[str, str] = {
    "openvino": "sa_runtime.runners.openvino:OpenVinoRunner",
    "onnxruntime": "sa_runtime.runners.onnxruntime:OnnxRuntimeRunner",
    "tensorrt": "sa_runtime.runners.tensorrt:TensorRTRunner",
    "torchscript": "sa_export.runners.torchscript:TorchScriptRunner",
    "torch-export": "sa_export.runners.torch_export:TorchExportRunner",
    "torch": "sa_export.runners.checkpoint:CheckpointRunner",
}
"""Those of the export floor need torch, which this floor never imports."""
_EXTRAS = {"tensorrt": "gpu", "torchscript": "train", "torch-export": "train", "torch": "train"}


def runtimes_for(model: Path) -> tuple[str, ...]:
    """Names of the runtimes that open a file, by its suffix.

    Raises:
        InputError: no such file, or none does.
    """
    if not model.is_file():
        there = "a folder" if model.is_dir() else "no such file"
        raise MissingFileError(
            f"{model}: {there}; expected a model that `sa-deploy export` wrote", path=model
        )
    if model.suffix not in FORMATS:
        raise InputError(
            f"{model}: no runtime opens {model.suffix or 'a file without suffix'!r}; "
            f"expected {', '.join(FORMATS)} as `sa-deploy export` writes them"
        )
    return FORMATS[model.suffix].runtimes


def runner_class(runtime: str) -> type[BaseRunner]:
    """The class of a runtime.

    Raises:
        InputError: an unknown name; the message lists the choices.
        MissingPackageError: what its module needs is not installed.
    """
    if runtime not in RUNNERS:
        raise bad_value("runtime", runtime, f"unknown; choose from auto, {', '.join(RUNNERS)}")
    module, _, name = RUNNERS[runtime].partition(":")
    loaded = require(module, extra=_EXTRAS.get(runtime, "cpu"), purpose=f"runtime {runtime}")
    found: type[BaseRunner] = getattr(loaded, name)
    return found


def option_names(kind: type[BaseRunner]) -> tuple[str, ...]:
    """Keyword arguments that a runner takes."""
    parameters = inspect.signature(kind).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def open_on(runtime: str, model: Path, **options: Any) -> BaseRunner:
    """Open an artefact on one runtime.

    Args:
        runtime: a name of :data:`RUNNERS`.
        model: the artefact.
        options: passed to the runner.

    Raises:
        InputError, MissingPackageError, ContractError: as
            :func:`sa_runtime.runners.opening.open_runner`.
    """
    possible = runtimes_for(model)
    kind = runner_class(runtime)
    possible += FORMATS[model.suffix].on_request
    if runtime not in possible:
        raise bad_value(
            "runtime",
            runtime,
            f"does not open {model.suffix} files; expected {' or '.join(possible)}",
            prefix=f"{model}: ",
        )
    _check_options(runtime, kind, options)
    began = time.perf_counter()
    runner: BaseRunner = kind(model, **options)
    seconds = round(time.perf_counter() - began, 3)
    _log.info(
        "%s: opened on %s in %.2f s", model, runner.label, seconds, extra={"seconds": seconds}
    )
    return runner


def _check_options(runtime: str, kind: type[BaseRunner], options: dict[str, Any]) -> None:
    known = option_names(kind)
    for name in options:
        if name not in known:
            raise bad_value("runtime", runtime, f"no option {name!r}; expected {', '.join(known)}")
