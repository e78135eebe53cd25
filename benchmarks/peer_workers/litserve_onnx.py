"""An ONNX file behind LitServe, in batches: MODEL BATCH DELAY_S PORT WORKERS THREADS."""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Response


class Embedding(litserve.LitAPI):  # type: ignore[misc]  # untyped where it is not installed
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[6])
        self.session = onnxruntime.InferenceSession(
            sys.argv[1], options, providers=["CPUExecutionProvider"]
        )
        found = self.session.get_inputs()[0]
        self.name, self.shape = found.name, found.shape[1:]

    def decode_request(self, request: dict[str, str]) -> Any:
        return np.frombuffer(base64.b64decode(request["crop"]), np.uint8).reshape(self.shape)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run(None, {self.name: x})[0]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> Response:
        return Response(output.astype("<f4").tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    _, model, batch, delay_s, port, workers, threads = sys.argv
    api = Embedding(max_batch_size=int(batch), batch_timeout=float(delay_s))
    litserve.LitServer(
        api, accelerator="cpu", fast_queue=True, workers_per_device=int(workers)
    ).run(port=int(port), generate_client_file=False)
