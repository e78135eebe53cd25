"""What a request asks for and would not get is refused, not passed over in silence."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

from sa_deploy import Gallery
from tests.runtime.service.serving import Running, serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
PNG = cv2.imencode(".png", np.full((64, 32, 3), 90, np.uint8))[1].tobytes()
TEXT = base64.b64encode(PNG).decode()
BOX = "[[0, 0, 9, 9]]"


@pytest.fixture(scope="module")
def running(tiny_model: TinyModel) -> Iterator[Running]:
    with serving(tiny_model.path) as found:
        yield found


@pytest.mark.parametrize(
    ("request_of", "said"),
    [
        ({"files": {"images": PNG}, "data": {"boxes": BOX}}, "boxes without a frame"),
        ({"files": {"image": PNG}}, "'image': expected `images`, or `frame` and `boxes`"),
        ({"files": {"images": PNG, "frame": PNG}}, "frame and images: expected one of them"),
        ({"files": {"frame": PNG}, "data": {"boxes": [BOX, BOX]}}, "boxes: expected once"),
        ({"json": {"images": [TEXT], "boxes": [[0, 0, 9, 9]]}}, "boxes without a frame"),
        ({"json": {"images": [TEXT], "frame": TEXT}}, "frame and images"),
        ({"json": {"pictures": [TEXT]}}, "'pictures': expected `images`"),
        ({"content": PNG, "params": {"modle": "x"}}, "?modle=: expected one of model, timeout_ms"),
        ({"content": PNG, "params": {"boxes": [BOX, BOX]}}, "boxes: expected once"),
    ],
)
def test_fields_that_nobody_would_read_are_refused(
    running: Running, request_of: dict[str, Any], said: str
) -> None:
    answer = httpx.post(f"{running.url}/embed", **request_of)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


def test_an_image_of_numbers_that_are_no_colours_is_not_called_cut_off(running: Running) -> None:
    floats = cv2.imencode(".tiff", np.zeros((9, 9, 3), np.float32))[1].tobytes()
    answer = httpx.post(f"{running.url}/embed", content=floats)
    assert answer.status_code == 422
    assert "or not of 8 or 16 bits a colour" in answer.json()["error"]


@pytest.mark.parametrize(
    "parameters",
    [{"shared_memory_region": "r"}, {"shared_memory_region": "r", "shared_memory_byte_size": 9}],
)
def test_shared_memory_is_refused_not_answered_in_the_body(
    running: Running, parameters: dict[str, Any]
) -> None:
    tensor = {"name": "images", "shape": [1, 32, 16, 3], "datatype": "UINT8"}
    full = {**tensor, "data": [0] * 1536}
    for body in (
        {"inputs": [full], "outputs": [{"name": "embeddings", "parameters": parameters}]},
        {"inputs": [{**tensor, "parameters": parameters}]},
    ):
        answer = httpx.post(f"{running.url}/v2/models/tiny0/infer", json=body)
        assert (answer.status_code, "no shared memory" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "length", [b"Content-Length: %d" % len(PNG), b"Transfer-Encoding: chunked"]
)
def test_a_body_behind_an_upgrade_is_refused_and_not_taken_for_a_request(
    running: Running, length: bytes
) -> None:
    host, _, port = running.host.partition(":")
    with socket.create_connection((host, int(port))) as link:
        link.settimeout(10)
        link.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" + length + b"\r\n\r\n"
        )
        answer = b""
        while part := link.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in head
    assert b"HTTP_1_1" in body


def test_probes_may_ask_without_a_body_and_are_told_in_the_protocols_words(
    running: Running,
) -> None:
    with httpx.Client(base_url=running.url) as http:
        for path, said in (
            ("/v2/health/live", {"live": True}),
            ("/v2/health/ready", {"live": True, "ready": True}),
            ("/v2/models/tiny0/ready", {"name": "tiny0", "ready": True}),
        ):
            assert http.get(path).json() == said
            head = http.head(path)
            assert (head.status_code, head.content) == (200, b"")
        # A slash too many is told, not sent on to an address that a proxy does not have.
        assert http.post("/embed/", content=PNG).status_code == 404


def test_the_openapi_document_says_what_is_taken_and_given(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    gallery = Gallery.create(tmp_path / "gallery", tiny_model.contract)
    with serving(tiny_model.path, gallery=gallery.path) as running:
        paths = httpx.get(f"{running.url}/openapi.json").json()["paths"]
    asked = {one["name"] for one in paths["/search"]["post"]["parameters"]}
    assert asked == {"model", "timeout_ms", "boxes", "k", "by", "camera", "source"}
    assert {one["name"] for one in paths["/embed"]["post"]["parameters"]} == asked - {
        "k", "by", "camera", "source",
    }  # fmt: skip
    for path, of_path in paths.items():
        for operation in of_path.values():
            assert set(operation["responses"]) == {"200", "4XX", "5XX"}, path
            refused = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
            assert refused["required"] == ["error"]
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    for path in ("/embed", "/v2/models/{name}/infer"):
        kinds = paths[path]["post"]["responses"]["200"]["content"]
        assert set(kinds) == {"application/json", "application/octet-stream"}
