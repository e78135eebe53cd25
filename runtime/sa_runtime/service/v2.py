"""The open inference protocol, version 2: JSON, and tensors in binary behind it.

As KServe and Triton write it down: https://github.com/kserve/open-inference-protocol, with Triton's
extensions ``binary_data``, ``statistics`` and ``model_configuration``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import orjson

from sa_runtime.arrays import Embeddings, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.service.models import Served
from sa_runtime.service.refusals import malformed, too_large

HEADER_LENGTH = "inference-header-content-length"
"""The HTTP header that says how long the JSON before the binary tensors is."""
EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics"]


class Asked(NamedTuple):
    """What a request for inference holds.

    Attributes:
        images: (N, H, W, 3) uint8.
        id: given back with the answer; empty where there was none.
        binary: whether the vectors are wanted in binary.
        timeout_s: of the request's own, ``inf`` where it has none.
    """

    images: Images
    id: str
    binary: bool
    timeout_s: float


def read_request(
    body: bytes | bytearray, header_length: str | None, contract: Contract, max_images: int
) -> Asked:
    """Read the body of a request for inference.

    Args:
        body: whole.
        header_length: the HTTP header :data:`HEADER_LENGTH`, where there is one.
        contract: of the model.
        max_images: in one request.

    Raises:
        RefusedError: not such a body, or tensors that are not what the model takes.
    """
    head, tail = _parts(body, header_length)
    try:
        fields = orjson.loads(head)
    except orjson.JSONDecodeError as exc:
        raise malformed(f"the request is not JSON ({exc})") from exc
    if not isinstance(fields, dict):
        raise malformed(f"the request is a JSON {type(fields).__name__}, expected an object")
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise malformed(f"expected one input, {contract.input.name!r}")
    images = _images(inputs[0], tail, contract, max_images)
    asked = fields.get("id", "")
    if not isinstance(asked, str) or len(asked) > 200:
        raise malformed("id: expected a text of at most 200 characters")
    parameters = _object(fields.get("parameters"), "parameters")
    binary = _wants_binary(fields.get("outputs"), parameters, contract)
    return Asked(images, asked, binary, _timeout_s(parameters))


def _parts(body: bytes | bytearray, header_length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[:0]
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 12:
        raise malformed(f"{HEADER_LENGTH}: expected a number of bytes")
    length = int(header_length)
    if length > len(view):
        raise malformed(f"{HEADER_LENGTH}: {length}, and the body has {len(view)} bytes")
    return view[:length], view[length:]


def _images(
    tensor: dict[str, Any], tail: memoryview, contract: Contract, max_images: int
) -> Images:
    spec = contract.input
    name, shape = tensor.get("name"), tensor.get("shape")
    if name != spec.name:
        raise malformed(f"input {str(name)[:80]!r}: the model takes {spec.name!r}")
    if tensor.get("datatype") != "UINT8":
        raise malformed(f"{spec.name}: datatype {str(tensor.get('datatype'))[:20]}, expected UINT8")
    if not (
        isinstance(shape, list)
        and len(shape) == 4
        and all(type(size) is int for size in shape)
        and shape[1:] == [spec.height, spec.width, 3]
    ):
        raise malformed(
            f"{spec.name}: shape {str(shape)[:80]}, expected [N, {spec.height}, {spec.width}, 3], "
            "uint8 BGR"
        )
    if not 0 <= shape[0] <= max_images:
        raise too_large(f"{spec.name}: {shape[0]} images, expected at most {max_images} a request")
    size = math.prod(shape)
    parameters = _object(tensor.get("parameters"), f"parameters of {spec.name}")
    _refuse_shared_memory(parameters, spec.name)
    if "binary_data_size" in parameters:
        stated = parameters["binary_data_size"]
        if stated != size or len(tail) != size:
            raise malformed(
                f"{spec.name}: binary_data_size {str(stated)[:20]} and {len(tail)} bytes behind "
                f"the JSON, expected {size} of both"
            )
        return np.frombuffer(tail, np.uint8).reshape(shape)
    if len(tail):
        raise malformed(f"{len(tail)} bytes behind the JSON belong to no input")
    return _from_json(tensor.get("data"), shape, spec.name)


def _from_json(data: object, shape: list[int], name: str) -> Images:
    if not isinstance(data, list):
        raise malformed(f"{name}: expected data, a list of numbers, or binary_data_size")
    try:
        values = np.asarray(data)
    except ValueError as exc:
        raise malformed(f"{name}: data of uneven rows") from exc
    if values.size != math.prod(shape) or (values.size and values.dtype.kind not in "iu"):
        raise malformed(
            f"{name}: data of {values.size} values of type {values.dtype}, expected "
            f"{math.prod(shape)} integers"
        )
    if values.size and (values.min() < 0 or values.max() > 255):
        raise malformed(f"{name}: data outside 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _wants_binary(outputs: object, parameters: dict[str, Any], contract: Contract) -> bool:
    name = contract.output.name
    if outputs is None:
        return parameters.get("binary_data_output") is True
    if not isinstance(outputs, list) or len(outputs) > 1:
        raise malformed(f"outputs: expected at most one, {name!r}")
    for output in outputs:
        if not isinstance(output, dict) or output.get("name") != name:
            raise malformed(f"outputs: the model gives {name!r} alone")
        own = _object(output.get("parameters"), f"parameters of {name}")
        _refuse_shared_memory(own, name)
        if "classification" in own:
            raise malformed(f"{name}: vectors have no classification")
        return own.get("binary_data", parameters.get("binary_data_output")) is True
    return parameters.get("binary_data_output") is True


def _refuse_shared_memory(parameters: dict[str, Any], name: str) -> None:
    if any(key.startswith("shared_memory") for key in parameters):
        raise malformed(f"{name}: no shared memory here; send and take tensors in the body")


def _timeout_s(parameters: dict[str, Any]) -> float:
    """Triton's ``timeout`` is in microseconds."""
    stated = parameters.get("timeout", 0)
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 0:
        raise malformed("timeout: expected microseconds, a whole number")
    return stated / 1e6 if stated else math.inf


def _object(found: object, what: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise malformed(f"{what}: expected an object")
    return found


def write_response(served: Served, vectors: Embeddings, asked: Asked) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of the JSON in it where vectors follow in binary."""
    contract = served.contract
    output: dict[str, Any] = {
        "name": contract.output.name,
        "datatype": "FP32",
        "shape": list(vectors.shape),
    }
    if asked.binary:
        output["parameters"] = {"binary_data_size": vectors.nbytes}
    else:
        output["data"] = np.ascontiguousarray(vectors).reshape(-1)
    answer: dict[str, Any] = {
        "model_name": served.name,
        "model_version": str(served.version),
        "parameters": {"space": contract.space, "embedding": contract.output.embedding},
        "outputs": [output],
    }
    if asked.id:
        answer["id"] = asked.id
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not asked.binary:
        return head, None
    return head + vectors.astype("<f4", copy=False).tobytes(), len(head)


def server_metadata(version: str) -> dict[str, Any]:
    """What ``GET /v2`` says."""
    return {"name": "sa-deploy", "version": version, "extensions": EXTENSIONS}


def model_metadata(served: Served) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` says."""
    contract = served.contract
    spec = contract.input
    return {
        "name": served.name,
        "versions": [str(served.version)],
        "platform": f"sa_deploy_{served.runner.name}",
        "inputs": [
            {
                "name": spec.name,
                "datatype": "UINT8",
                "shape": [-1, spec.height, spec.width, 3],
            }
        ],
        "outputs": [
            {"name": contract.output.name, "datatype": "FP32", "shape": [-1, contract.output.dim]}
        ],
        "parameters": {"space": contract.space, "embedding": contract.output.embedding},
    }


def model_config(served: Served, max_delay_ms: float) -> dict[str, Any]:
    """What ``GET /v2/models/NAME/config`` says, in Triton's words."""
    contract = served.contract
    spec = contract.input
    return {
        "name": served.name,
        "platform": f"sa_deploy_{served.runner.name}",
        "max_batch_size": served.batcher.batch_size,
        "input": [
            {"name": spec.name, "data_type": "TYPE_UINT8", "dims": [spec.height, spec.width, 3]}
        ],
        "output": [
            {"name": contract.output.name, "data_type": "TYPE_FP32", "dims": [contract.output.dim]}
        ],
        "dynamic_batching": {"max_queue_delay_microseconds": round(max_delay_ms * 1000)},
    }


def model_statistics(served: Served) -> dict[str, Any]:
    """One of the entries of ``GET /v2/models/NAME/stats``; times in nanoseconds."""
    found = served.statistics
    count = found.requests

    def entry(times: int, seconds: float) -> dict[str, int]:
        return {"count": times, "ns": round(seconds * 1e9)}

    return {
        "name": served.name,
        "version": str(served.version),
        "last_inference": round(found.last * 1000),
        "inference_count": found.crops,
        "execution_count": found.batches,
        "inference_stats": {
            "success": entry(count, found.request_s),
            "fail": entry(found.failures, 0.0),
            "queue": entry(count, found.queue_s),
            "compute_input": entry(
                count, max(found.request_s - found.queue_s - found.infer_s, 0.0)
            ),
            "compute_infer": entry(count, found.infer_s),
            "compute_output": entry(count, 0.0),
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": entry(times, float(found.size_s[size]))}
            for size, times in sorted(found.sizes.items())
        ],
    }
