"""OpenVINO IR from an ONNX model, the operator inlined, the contract in ``rt_info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sa_runtime.artefact import RT_INFO_PATH
from sa_runtime.contract import Contract
from sa_runtime.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto


class OpenVinoWriter:
    """An ONNX model as OpenVINO IR: ``.xml``, its weights beside it as ``.bin``.

    Args:
        model: without model-local functions, which OpenVINO's reader does not know.

    Raises:
        MissingPackageError: OpenVINO is not installed.
    """

    def __init__(self, model: ModelProto) -> None:
        self._openvino = require("openvino", extra="cpu", purpose="--openvino")
        bare = type(model)()
        bare.CopyFrom(model)
        del bare.metadata_props[:]
        self._model = self._openvino.Core().read_model(bare.SerializeToString())

    def __call__(self, contract: Contract, path: Path) -> None:
        """Write both files with this contract; weights of fp16 and bf16 artefacts as FP16.

        The IR has no bf16 arithmetic of its own: the runner asks for it as the contract says, and
        FP16 rounds weights less than bf16 does.
        """
        self._model.set_rt_info(contract.to_json(), list(RT_INFO_PATH))
        half = contract.precision in ("fp16", "bf16")
        self._openvino.save_model(self._model, str(path), compress_to_fp16=half)
