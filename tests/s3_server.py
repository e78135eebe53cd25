"""An S3 server on loopback, in a process of its own: moto's.

A test module takes the fixture with ``pytest_plugins = ("tests.s3_server",)``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

BUCKET = "cams"
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """Its address; it ends with the module."""
    pytest.importorskip("moto", reason="moto is not installed: no S3 server runs here")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file system of an empty bucket ``cams``; the environment leads there."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    stop = time.monotonic() + 20
    while True:
        try:
            if files.exists(BUCKET):
                files.rm(BUCKET, recursive=True)
            files.mkdir(BUCKET)
            return files
        except OSError:
            if time.monotonic() > stop:
                raise
            time.sleep(0.1)
