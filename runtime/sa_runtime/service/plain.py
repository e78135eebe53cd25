"""The plain endpoints' bodies: image files, a frame with boxes; vectors as JSON or bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import orjson
from starlette.datastructures import QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sa_runtime import crops
from sa_runtime.arrays import Embeddings, Image, Images
from sa_runtime.artefact.contract import Contract
from sa_runtime.decoding import decode_image
from sa_runtime.errors import InputError, shown
from sa_runtime.image_files import image_size, kind_of
from sa_runtime.service.gate import Job
from sa_runtime.service.limits import Limits
from sa_runtime.service.refusals import RefusedError, malformed, too_large
from sa_runtime.service.replies import BYTES

_FIELDS = 8


_ASKED = ("model", "timeout_ms", "boxes")
"""What the query of a plain request may hold."""


class Pictures(NamedTuple):
    """What a request holds: image files, each a person; or one with the boxes of several."""

    files: list[bytes]
    boxes: list[list[float]] | None


def check_query(asked: QueryParams, several: Sequence[str] = (), more: Sequence[str] = ()) -> None:
    """Refuse a query that would be passed over: what it asks for would not be done.

    Args:
        asked: the query.
        several: beside :data:`_ASKED` may be there, as often as is liked.
        more: likewise, once.

    Raises:
        RefusedError: another name, or twice what has one value.
    """
    known = (*_ASKED, *more, *several)
    for name, _ in asked.multi_items():
        if name not in known:
            raise malformed(f"?{shown(name)[1:-1]}=: expected one of {', '.join(known)}")
        if name not in several and len(asked.getlist(name)) > 1:
            raise malformed(f"{name}: expected once")


async def read_pictures(job: Job, limits: Limits) -> Pictures:
    """Read the body of a plain request.

    Raises:
        RefusedError: not such a body.
    """
    kind, _, _ = job.request.headers.get("content-type", BYTES).partition(";")
    kind = kind.strip().lower()
    if kind == "multipart/form-data":
        found = await _from_form(job, limits)
    elif kind == "application/json":
        found = _from_json(job.body)
    elif kind == BYTES or kind.startswith("image/"):
        found = Pictures([bytes(job.body)], None)
    else:
        raise RefusedError(
            415,
            f"content-type {kind[:60]!r}: expected an image (image/jpeg, image/png, {BYTES}), "
            "multipart/form-data or application/json",
        )
    if "boxes" in job.request.query_params:
        found = found._replace(boxes=_boxes(job.request.query_params["boxes"]))
    if found.boxes is not None and len(found.files) != 1:
        raise malformed(f"boxes with {len(found.files)} images, expected one frame")
    if not found.files:
        raise malformed("no image in the request; expected `images`, or `frame` and `boxes`")
    count = len(found.files) if found.boxes is None else len(found.boxes)
    if count > limits.max_images:
        raise too_large(f"{count} people, expected at most {limits.max_images} a request")
    return found


def _from_json(body: bytes | bytearray) -> Pictures:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise malformed(f"the request is not JSON ({exc})") from exc
    if not isinstance(fields, dict):
        raise malformed(f"a JSON {type(fields).__name__}, expected an object")
    _require_fields(list(fields))
    if "frame" in fields:
        boxes = fields.get("boxes")
        return Pictures([_unpacked(fields["frame"], "frame")], _boxes(boxes))
    images = fields.get("images")
    if not isinstance(images, list):
        raise malformed("expected images, a list of image files in base64, or frame and boxes")
    return Pictures([_unpacked(text, f"image {i}") for i, text in enumerate(images)], None)


def _require_fields(names: Sequence[str]) -> None:
    """Refuse what would be passed over in silence: its people would be missing in the answer."""
    for name in names:
        if name not in ("images", "frame", "boxes"):
            raise malformed(f"{shown(name)}: expected `images`, or `frame` and `boxes`")
    if "frame" in names and "images" in names:
        raise malformed("frame and images: expected one of them")
    if "boxes" in names and "frame" not in names:
        raise malformed("boxes without a frame; call the image that they are cut from `frame`")
    if names.count("boxes") > 1:
        raise malformed("boxes: expected once, a list of all of them")


def _unpacked(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise malformed(f"{what}: expected a file in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise malformed(f"{what}: not base64 ({exc})") from exc


async def _from_form(job: Job, limits: Limits) -> Pictures:
    async def whole() -> AsyncIterator[bytes]:
        yield bytes(job.body)

    if not job.body.rstrip(b"\r\n ").endswith(b"--"):
        raise malformed("multipart/form-data: the last boundary is missing")
    parser = MultiPartParser(
        job.request.headers,
        whole(),  # type: ignore[arg-type]  # it only iterates
        max_files=limits.max_images,
        max_fields=_FIELDS,
    )
    parser.spool_max_size = limits.body_bytes  # never onto a disk
    form = None
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise malformed(f"multipart/form-data: {exc.message}") from exc
    except (KeyError, UnicodeDecodeError) as exc:
        raise malformed(f"multipart/form-data: not such a body ({type(exc).__name__})") from exc
    finally:
        if form is None:
            _close(parser)
    try:
        _require_fields([name for name, _ in form.multi_items()])
        frames = [await _file(one) for one in form.getlist("frame")]
        if frames:
            return Pictures(frames, _boxes(form.get("boxes")))
        return Pictures([await _file(one) for one in form.getlist("images")], None)
    finally:
        await form.close()
        _close(parser)


def _close(parser: MultiPartParser) -> None:
    """Parts without an end, or of a form that failed, are in no form that could close them."""
    for file in getattr(parser, "_files_to_close_on_error", ()):
        file.close()


async def _file(part: UploadFile | str) -> bytes:
    if isinstance(part, str):
        raise malformed("multipart/form-data: expected files, with a filename")
    return await part.read()


def _boxes(found: object) -> list[list[float]]:
    if isinstance(found, str):
        try:
            found = orjson.loads(found)
        except orjson.JSONDecodeError as exc:
            raise malformed(f"boxes: not JSON ({exc})") from exc
    if not isinstance(found, list):
        raise malformed("boxes: expected a list of [x0, y0, x1, y1] in pixels")
    for index, box in enumerate(found):
        numbers = isinstance(box, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in box
        )
        if not numbers or len(box) != 4:
            raise malformed(f"box {index}: expected four numbers x0, y0, x1, y1")
    return found


def cut(pictures: Pictures, contract: Contract, limits: Limits) -> Images:
    """Decode, cut and resize what a request holds.

    Returns:
        (N, H, W, 3) uint8 at the model's size; row i is person i.

    Raises:
        RefusedError: an image that cannot be decoded or is too large, or a box outside its frame.
    """
    spec = contract.input
    if pictures.boxes is not None:
        frame = decode(pictures.files[0], "frame", limits)
        try:
            return crops.crop_batch(frame, pictures.boxes, spec.height, spec.width)
        except InputError as exc:
            said = str(exc).partition(";")[0]  # behind it is what a caller in Python does
            raise RefusedError(422, f"{said}; leave it out", reason="box outside") from exc
    out = np.empty((len(pictures.files), spec.height, spec.width, 3), np.uint8)
    for index, data in enumerate(pictures.files):
        crops.resize(decode(data, f"image {index}", limits), spec.height, spec.width, out[index])
    return out


def decode(data: bytes, what: str, limits: Limits) -> Image:
    """An image file of a client.

    Raises:
        RefusedError: 415 where it is no image, 413 where it is too large, 422 where it is damaged.
    """
    if kind_of(data) is None:
        raise RefusedError(
            415,
            f"{what}: not an image ({len(data)} bytes); expected JPEG, PNG, BMP, WebP, TIFF or GIF",
            reason="not an image",
        )
    size = image_size(data)
    if size is not None and size[0] * size[1] > limits.max_pixels:
        raise too_large(
            f"{what}: {size[0]}x{size[1]} pixels, expected at most {limits.max_pixels / 1e6:g} "
            "million"
        )
    image = None
    if size is not None:
        try:
            image = decode_image(data)
        except cv2.error:
            image = None
    if image is None or not image.size:
        raise RefusedError(
            422,
            f"{what}: not a whole image, or not of 8 or 16 bits a colour ({len(data)} bytes)",
            reason="damaged image",
        )
    return image


def answer(
    contract: Contract, name: str, version: int, vectors: Embeddings, accept: str
) -> tuple[bytes, str, dict[str, str]]:
    """The body of an answer, its type, and headers: JSON, or the numbers where bytes are asked."""
    headers = {"x-shape": ",".join(map(str, vectors.shape))}
    if BYTES in accept:
        return vectors.astype("<f4", copy=False).tobytes(), BYTES, headers
    fields = {
        "model": name,
        "version": version,
        "space": contract.space,
        "embedding": contract.output.embedding,
        "dim": contract.output.dim,
        "vectors": vectors,
    }
    body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    return body, "application/json", headers
