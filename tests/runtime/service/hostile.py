"""Requests that no honest client sends: noise, lies about lengths, bombs, broken protocols."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

_PATHS = (
    "/embed", "/v2/models/tiny0/infer", "/v2/models/x/infer", "/v2/models/tiny0/versions/9/infer"
)  # fmt: skip
_TYPES = (
    "image/jpeg", "application/json", "application/octet-stream", "text/plain",
    "multipart/form-data; boundary=b", "multipart/form-data", "a" * 300,
)  # fmt: skip


def hostile(count: int, *, seed: int) -> Iterator[bytes]:
    """What is sent, one connection each; none of it may be answered with 200 or 5xx."""
    rng = np.random.default_rng(seed)
    makers = (_noise, _mutated_image, _bomb, _tensor, _form, _boxes, _protocol, _lengths)
    for index in range(count):
        yield makers[index % len(makers)](rng)


def answers_of(where: str, requests: Iterable[bytes]) -> list[int | None]:
    """The statuses of ``HOST:PORT``; ``None`` where the connection was closed without one."""
    host, port = where.split(":")
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda sent: _answer((host, int(port)), sent), requests))


def slow_answers(where: str, count: int, *, every_s: float) -> list[int | None]:
    """The statuses of so many who send a byte now and then, all at the same time."""
    host, port = where.split(":")
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    links = [socket.create_connection((host, int(port)), timeout=20) for _ in range(count)]
    for index, link in enumerate(links):
        link.sendall(head if index % 2 else head[: 31 + index % 10])
    said: dict[int, bytes] = {}
    until = time.monotonic() + 60
    while len(said) < count and time.monotonic() < until:
        time.sleep(every_s)
        for index, link in enumerate(links):
            if index in said:
                continue
            try:
                if select.select([link], [], [], 0)[0]:
                    said[index] = link.recv(4096)
                    link.close()
                else:
                    link.sendall(b"a")
            except ConnectionError:
                said[index] = b""
    for link in links:
        link.close()
    return [int(one[9:12]) if one.startswith(b"HTTP/1.1 ") else None for one in said.values()]


def disconnect(where: str, count: int) -> None:
    """So many who go away: in their headers, in their body, and before their answer."""
    host, port = where.split(":")
    image = cv2.imencode(".png", np.zeros((64, 48, 3), np.uint8))[1].tobytes()
    whole = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(image), image)
    for index in range(count):
        with socket.create_connection((host, int(port)), timeout=20) as link:
            link.sendall((whole[:20], whole[:-5], whole)[index % 3])


def _answer(where: tuple[str, int], sent: bytes) -> int | None:
    said = b""
    with socket.create_connection(where, timeout=20) as link:
        try:
            link.sendall(sent)
            while b"\r\n" not in said and not sent.startswith(b"cut"):
                more = link.recv(4096)
                if not more:
                    break
                said += more
        except ConnectionError:
            pass
    return int(said[9:12]) if said.startswith(b"HTTP/1.1 ") else None


def _post(rng: np.random.Generator, path: str, body: bytes, kind: str, headers: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\n{headers}connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


def _bytes(rng: np.random.Generator, most: int) -> bytes:
    return rng.integers(0, 256, int(rng.integers(0, most)), dtype=np.uint8).tobytes()


def _noise(rng: np.random.Generator) -> bytes:
    kind = str(rng.choice(_TYPES))
    return _post(rng, str(rng.choice(_PATHS)), _bytes(rng, 5000), kind)


def _mutated_image(rng: np.random.Generator) -> bytes:
    """An image file that is cut in its middle; what is behind is noise."""
    image = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    kind = str(rng.choice([".jpg", ".png", ".bmp", ".webp", ".tiff"]))
    data = bytearray(cv2.imencode(kind, image)[1].tobytes())
    data = data[: max(len(data) // int(rng.integers(3, 9)), 12)]
    data[int(rng.integers(8, len(data)))] ^= 255
    if kind in (".png", ".jpg"):
        return _post(rng, "/embed", bytes(data), "image/png")
    # Others may still be whole pictures for their decoder: said to be another type.
    return _post(rng, "/embed", bytes(data), "text/css")


def _bomb(rng: np.random.Generator) -> bytes:
    side = int(rng.integers(5_000, 2**31 - 1))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(50_000), 9)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data
        chunks += struct.pack(">I", zlib.crc32(kind + data))
    return _post(rng, "/embed", b"\x89PNG\r\n\x1a\n" + chunks, "image/png")


def _tensor(rng: np.random.Generator) -> bytes:
    tensor = {
        "name": rng.choice(["images", "x", "\u0000"]),
        "shape": [int(v) for v in rng.integers(-5, 2**40, 4)],
        "datatype": rng.choice(["UINT8", "FP32", "BYTES"]),
        "data": [int(v) for v in rng.integers(-300, 300, 20)],
    }
    depth = int(rng.integers(1, 3000))
    bodies = (
        json.dumps({"inputs": [tensor]}),
        json.dumps({"inputs": [tensor] * int(rng.integers(0, 9))}),
        '{"inputs":' + "[" * depth + "]" * depth + "}",
        '{"inputs": [{"name": "images", "shape": [1e999, 32, 16, 3]}]}',
        "nan",
    )
    length = str(rng.choice(["", "5", "-5", "999999999999999999999", "abc"]))
    header = f"inference-header-content-length: {length}\r\n" if length else ""
    body = bodies[int(rng.integers(len(bodies)))].encode() + _bytes(rng, 200)
    return _post(rng, "/v2/models/tiny0/infer", body, "application/octet-stream", header)


def _form(rng: np.random.Generator) -> bytes:
    part = (
        b'--b\r\ncontent-disposition: form-data; name="images"; filename="a"\r\n\r\n'
        + _bytes(rng, 300)
        + b"\r\n"
    )
    ends = (b"--b--\r\n", b"--b", b"", b"--c--\r\n")
    body = part * int(rng.integers(1, 40)) + ends[int(rng.integers(len(ends)))]
    kind = str(rng.choice(["multipart/form-data; boundary=b", "multipart/form-data"]))
    return _post(rng, "/embed", body, kind)


def _boxes(rng: np.random.Generator) -> bytes:
    image = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    boxes = str(
        rng.choice(
            ["[[1,2]]", "[[5,5,1,1]]", "[[1e999,0,1,1]]", "{}", "[[null,0,1,1]]", "%00", "["]
        )
    )
    return _post(rng, f"/embed?boxes={boxes}", image, "image/png")


def _protocol(rng: np.random.Generator) -> bytes:
    choices = (
        _bytes(rng, 300) + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /embed HTTP/1.1\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v2/models/%ff%fe/stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"DELETE /embed HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /docs/files/../../../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"cut",
    )
    return choices[int(rng.integers(len(choices)))]


def _lengths(rng: np.random.Generator) -> bytes:
    stated = str(rng.choice(["-1", "99999999999", "1e5", "0x9", "10000000"]))
    return f"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: {stated}\r\n\r\nabc".encode()
