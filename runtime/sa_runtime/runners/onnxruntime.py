"""ONNX files on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_runtime.contract import METADATA_KEY, Contract
from sa_runtime.errors import ContractError, RunnerError
from sa_runtime.extras import require
from sa_runtime.runners.base import BaseRunner


class OnnxRuntimeRunner(BaseRunner):
    """An ONNX artefact on ONNX Runtime.

    Args:
        path: the ``.onnx`` file.
        threads: intra-op threads, 0 for the runtime's choice.
        providers: execution providers in order of preference.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        RunnerError: the file cannot be loaded.
        ContractError: it carries no contract, or its graph disagrees with it.
    """

    name = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        ort = require("onnxruntime", extra="cpu", purpose="--runtime onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as exc:  # ORT raises a family of C++ mapped types without a common base
            raise RunnerError(f"{path}: ONNX Runtime cannot load it: {exc}") from exc
        super().__init__(path, self._contract_of(session, path))
        self._session = session

    def _infer(self, inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        spec = self.contract
        try:
            output: NDArray[np.generic] = self._session.run(
                [spec.output.name], {spec.input.name: inputs}
            )[0]
        except Exception as exc:
            raise RunnerError(f"{self.path}: ONNX Runtime failed on {inputs.shape}: {exc}") from exc
        return output

    def _release(self) -> None:
        del self._session

    @staticmethod
    def _contract_of(session: Any, path: Path) -> Contract:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ContractError(
                f"{path}: no contract in its metadata (key {METADATA_KEY}); "
                "expected a file written by `sa-deploy export --onnx`"
            )
        contract = Contract.from_json(text, source=str(path))
        found = {item.name: item for item in (*session.get_inputs(), *session.get_outputs())}
        spec = contract.input
        hwc = (spec.height, spec.width, 3)
        sizes = hwc if spec.layout == "nhwc" else (3, spec.height, spec.width)
        kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[spec.dtype]
        for name, tail, dtype in (
            (spec.name, list(sizes), kind),
            (contract.output.name, [contract.output.dim], "tensor(float)"),
        ):
            item = found.get(name)
            if item is None or item.shape[1:] != tail or item.type != dtype:
                came = "absent" if item is None else f"{item.type} {item.shape}"
                raise ContractError(
                    f"{path}: its contract says {name} is {dtype} (N, {', '.join(map(str, tail))}), "
                    f"the graph says {came}; the file was changed after export, export it again"
                )
        return contract
