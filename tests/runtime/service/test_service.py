"""A service's vectors are those of the embedder, by every way in; each is told the space."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

import sa_deploy
from sa_deploy import AsyncClient, Client, Embedder
from sa_runtime.arrays import Images
from sa_runtime.errors import ContractError, InputError, RunnerError
from tests.runtime.service.serving import Running, serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def running(tiny_model: TinyModel) -> Iterator[Running]:
    with serving(tiny_model.path) as found:
        yield found


@pytest.fixture(scope="module")
def people() -> list[Images]:
    """Crops of sizes of their own."""
    sizes = [(60, 30), (128, 64), (31, 17), (200, 80), (64, 64)]
    blocks = [RNG.integers(0, 256, (8, 4, 3), dtype=np.uint8) for _ in sizes]
    return [cv2.resize(b, (w, h)) for b, (h, w) in zip(blocks, sizes, strict=True)]  # type: ignore[misc]


@pytest.fixture(scope="module")
def expected(tiny_model: TinyModel, people: list[Images]) -> Any:
    with Embedder(tiny_model.path, "onnxruntime") as embedder:
        return embedder.embed(people)


def png(image: Images) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def crops(count: int) -> Images:
    return RNG.integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_an_independent_client_reads_metadata_and_gets_the_vectors(
    running: Running, tiny_model: TinyModel, binary: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(running.host)
    name = tiny_model.path.stem
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, "1")
        assert client.get_server_metadata()["extensions"] == [
            "binary_tensor_data",
            "model_configuration",
            "statistics",
        ]
        metadata = client.get_model_metadata(name)
        (tensor,) = metadata["inputs"]
        assert (tensor["name"], tensor["datatype"]) == ("images", "UINT8")
        assert tensor["shape"] == [-1, 32, 16, 3]
        assert metadata["outputs"][0]["shape"] == [-1, 12]
        assert client.get_model_config(name)["max_batch_size"] == 8
        before = client.get_inference_statistics(name)["model_stats"][0]["inference_count"]
        images = crops(11)
        given = triton.InferInput("images", list(images.shape), "UINT8")
        given.set_data_from_numpy(images, binary_data=binary)
        wanted = triton.InferRequestedOutput("embeddings", binary_data=binary)
        result = client.infer(name, [given], outputs=[wanted], request_id="one")
        np.testing.assert_allclose(
            result.as_numpy("embeddings"), tiny_model.embed(images), atol=2e-6
        )
        answer = result.get_response()
        assert answer["parameters"]["space"] == tiny_model.contract.space
        assert answer["id"] == "one"
        after = client.get_inference_statistics(name)["model_stats"][0]
        assert after["inference_count"] == before + 11
        assert after["inference_stats"]["success"]["count"] >= 1
        assert sum(one["batch_size"] for one in after["batch_stats"]) > 0
    finally:
        client.close()


def test_the_independent_client_is_told_what_is_wrong(running: Running) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(running.host)
    try:
        given = triton.InferInput("images", [1, 30, 16, 3], "UINT8")
        given.set_data_from_numpy(np.zeros((1, 30, 16, 3), np.uint8))
        with pytest.raises(triton.InferenceServerException, match=r"expected \[N, 32, 16, 3\]"):
            client.infer("tiny0", [given])
        with pytest.raises(triton.InferenceServerException, match="no model 'other'"):
            client.infer("other", [given])
    finally:
        client.close()


def test_image_files_are_embedded_one_by_one_and_in_forms(
    running: Running, people: list[Images], expected: Any, tiny_model: TinyModel
) -> None:
    with httpx.Client(base_url=running.url) as http:
        one = http.post("/embed", content=png(people[0]), headers={"content-type": "image/png"})
        assert one.status_code == 200, one.text
        assert one.headers["x-feature-space"] == tiny_model.contract.space
        answer = one.json()
        assert answer["space"] == tiny_model.contract.space
        np.testing.assert_allclose(answer["vectors"], expected[:1], atol=2e-6)
        form = http.post("/embed", files=[("images", ("a.png", png(p))) for p in people])
        np.testing.assert_allclose(form.json()["vectors"], expected, atol=2e-6)
        packed = {"images": [base64.b64encode(png(p)).decode() for p in people]}
        asked = http.post("/embed", json=packed, headers={"accept": "application/octet-stream"})
        assert asked.headers["x-shape"] == "5,12"
        found = np.frombuffer(asked.content, "<f4").reshape(5, 12)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_boxes_of_a_frame_are_embedded(running: Running, tiny_model: TinyModel) -> None:
    frame = cv2.resize(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8), (320, 240))
    boxes: list[list[float]] = [[10, 20, 60, 140], [100, 5.4, 180, 200], [-8, -8, 40, 100]]
    with Embedder(tiny_model.path, "onnxruntime") as embedder:
        expected = embedder.embed_boxes(np.asarray(frame, np.uint8), boxes)
    text = json.dumps(boxes)
    packed = base64.b64encode(png(np.asarray(frame, np.uint8))).decode()
    with httpx.Client(base_url=running.url) as http:
        for answer in (
            http.post("/embed", params={"boxes": text}, content=base64.b64decode(packed)),
            http.post("/embed", files={"frame": base64.b64decode(packed)}, data={"boxes": text}),
            http.post("/embed", json={"frame": packed, "boxes": boxes}),
        ):
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(answer.json()["vectors"], expected, atol=2e-6)
    with Client(running.url) as client:
        found = client.embed_boxes(np.asarray(frame, np.uint8), boxes)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_client_gives_the_vectors_of_the_embedder(
    running: Running, people: list[Images], expected: Any, tiny_model: TinyModel, tmp_path: Path
) -> None:
    paths = []
    for index, image in enumerate(people):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(png(image))
    with Client(running.url) as client:
        assert client.ready()
        assert client.contract == tiny_model.contract
        assert (client.space, client.dim) == (tiny_model.contract.space, 12)
        np.testing.assert_allclose(client.embed(people), expected, atol=2e-6)
        np.testing.assert_allclose(client.embed_paths(paths), expected, atol=2e-6)
        assert client.embed([]).shape == (0, 12)
        many = crops(300)  # several requests
        np.testing.assert_allclose(client.embed(many), tiny_model.embed(many), atol=2e-6)


def test_the_client_on_asyncio_gives_them_too(
    running: Running, people: list[Images], expected: Any, tiny_model: TinyModel
) -> None:
    async def ask() -> None:
        async with AsyncClient(running.url) as client:
            assert await client.ready()
            np.testing.assert_allclose(await client.embed(people), expected, atol=2e-6)
            many = crops(200)
            np.testing.assert_allclose(await client.embed(many), tiny_model.embed(many), atol=2e-6)

    asyncio.run(ask())


def test_requests_at_the_same_time_share_batches(tiny_model: TinyModel) -> None:
    images = crops(24)
    with serving(tiny_model.path, batch_size=8, max_delay_ms=200) as running:
        with Client(running.url, connections=1) as asked:
            asked.contract  # noqa: B018

        def one(index: int) -> Any:
            with Client(running.url) as client:
                return client.embed(images[index : index + 1])

        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(one, range(24)))
        np.testing.assert_allclose(np.concatenate(found), tiny_model.embed(images), atol=2e-6)
        (served,) = running.service.models
        assert served.statistics.crops == 24
        assert served.statistics.batches < 12


def test_pages_for_people_fetch_nothing_from_elsewhere(running: Running) -> None:
    with httpx.Client(base_url=running.url) as http:
        page = http.get("/docs")
        assert page.status_code == 200
        assert "https://" not in page.text
        assert http.get("/docs/files/swagger-ui-bundle.js").status_code == 200
        described = http.get("/openapi.json").json()
        assert {"/embed", "/v2/models/{name}/infer"} <= set(described["paths"])
        assert described["openapi"].startswith("3.0")


def test_a_client_says_what_is_wrong(running: Running, tmp_path: Path) -> None:
    with Client(running.url, model="other") as client, pytest.raises(InputError, match="no model"):
        client.embed(list(crops(1)))
    with pytest.raises(InputError, match="expected an address"):
        Client("127.0.0.1:8000")
    (tmp_path / "no.png").write_bytes(b"hello")
    with Client(running.url) as client:
        with pytest.raises(InputError, match="image 0: not an image"):
            client.embed_paths([tmp_path / "no.png"])
        with pytest.raises(InputError, match="cannot be read"):
            client.embed_paths([tmp_path / "absent.png"])
    with (
        Client("http://127.0.0.1:9", timeout_s=0.5) as nobody,
        pytest.raises(RunnerError, match="nobody answers there"),
    ):
        nobody.embed(list(crops(1)))
    assert not Client("http://127.0.0.1:9").ready()


def test_a_client_notices_that_the_space_has_changed(
    tiny_model: TinyModel, make_tiny_model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(tiny_model.path, path)
    with serving(path) as running, Client(running.url) as client:
        client.embed(list(crops(1)))
        shutil.copy(make_tiny_model(seed=5).path, path)
        asyncio.run(running.service.models.reload("model", any_space=True))
        with pytest.raises(ContractError, match="do not compare"):
            client.embed(list(crops(1)))


def test_public_names_are_these_classes() -> None:
    assert sa_deploy.Client is Client
    assert sa_deploy.AsyncClient is AsyncClient
