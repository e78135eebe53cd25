"""The page ``/docs``: what the service takes, to read and to try; nothing is fetched elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

from sa_runtime.service.search import MOST

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_TEXT = {"type": "string"}
_BOXES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
}
_WHOSE: dict[str, Any] = {"model": _TEXT, "version": {"type": "integer"}, "space": _TEXT}


def _asked(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _answer(properties: dict[str, Any], *, binary: str = "") -> dict[str, Any]:
    schema = {"type": "object", "required": list(properties), "properties": properties}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if binary:
        content["application/octet-stream"] = _IMAGE
    return {"200": {"description": binary or "As asked for.", "content": content}}


EMBED_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": _IMAGE,
            "image/png": _IMAGE,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Image files, each of one person.",
                        },
                        "frame": {
                            "type": "string",
                            "format": "binary",
                            "description": "An image of several people, with `boxes`.",
                        },
                        "boxes": {
                            "type": "string",
                            "description": "JSON: [[x0, y0, x1, y1], ...] in pixels.",
                        },
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string"}},
                        "frame": {"type": "string"},
                        "boxes": _BOXES,
                    },
                    "description": "Image files in base64.",
                }
            },
        },
    },
    "parameters": [
        _asked("model", _TEXT),
        {
            "name": "boxes",
            "in": "query",
            "required": False,
            "content": {"application/json": {"schema": _BOXES}},
        },
        _asked("timeout_ms", {"type": "number", "minimum": 0, "exclusiveMinimum": True}),
    ],
    "responses": _answer(
        {
            **_WHOSE,
            "embedding": _TEXT,
            "dim": {"type": "integer"},
            "vectors": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "number"}},
                "description": "One of unit length for each image or box, in their order.",
            },
        },
        binary="Little-endian float32 where `Accept` asks for it; their shape is in `X-Shape`.",
    ),
}
SEARCH_BODY: dict[str, Any] = {
    "requestBody": EMBED_BODY["requestBody"],
    "parameters": [
        *EMBED_BODY["parameters"],
        _asked("k", {"type": "integer", "minimum": 1, "maximum": MOST, "default": 10}),
        _asked("by", {"type": "string", "enum": ["row", "track"], "default": "row"}),
        _asked("camera", {"type": "array", "items": _TEXT}),
        _asked("source", {"type": "array", "items": _TEXT}),
    ],
    "responses": _answer(
        {
            **_WHOSE,
            "results": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "object"}},
                "description": "For each image or box the nearest rows, the nearest first.",
            },
        }
    ),
}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": _TEXT,
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": _TEXT,
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": _TEXT,
                        "inputs": {"type": "array", "items": _TENSOR},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                        "parameters": {"type": "object"},
                    },
                }
            },
            "application/octet-stream": _IMAGE,
        },
    },
    "responses": _answer(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
        binary="The same, and the vectors behind it, where they are asked for in binary.",
    ),
}
LOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "parameters": {
                            "type": "object",
                            "properties": {"any_space": {"type": "boolean"}},
                        }
                    },
                }
            }
        },
    }
}
_ERROR = {
    "application/json": {
        "schema": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused: what came, and what was expected.", "content": _ERROR},
    "5XX": {"description": "Not done: off, stopped, too late, or failed.", "content": _ERROR},
}
"""What every endpoint may answer in the place of what was asked for."""


def add_docs(app: FastAPI) -> None:
    """Serve ``/docs`` from the files of the package ``swagger_ui_bundle``."""
    folder = _bundle()
    if folder is None:
        return
    # The bundled page knows OpenAPI 3.0.
    app.openapi_version = "3.0.3"
    app.mount("/docs/files", StaticFiles(directory=folder))

    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="sa-deploy",
            swagger_js_url="/docs/files/swagger-ui-bundle.js",
            swagger_css_url="/docs/files/swagger-ui.css",
            swagger_favicon_url="/docs/files/favicon-32x32.png",
        )

    app.add_api_route("/docs", docs, include_in_schema=False)


def _bundle() -> Path | None:
    found = importlib.util.find_spec("swagger_ui_bundle")
    if found is None or found.origin is None:
        return None
    folders = sorted((Path(found.origin).parent / "vendor").glob("swagger-ui-*"))
    return folders[-1] if folders else None
