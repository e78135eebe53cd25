"""The page ``/docs``: what the service takes, to read and to try; nothing is fetched elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
EMBED_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": _IMAGE,
            "image/png": _IMAGE,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
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
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string"}},
                        "frame": {"type": "string"},
                        "boxes": {
                            "type": "array",
                            "items": {"type": "array", "items": {"type": "number"}},
                        },
                    },
                    "description": "Image files in base64.",
                }
            },
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": kind}}
        for name, kind in (("model", "string"), ("boxes", "string"), ("timeout_ms", "number"))
    ],
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": _IMAGE,
        },
    }
}


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
