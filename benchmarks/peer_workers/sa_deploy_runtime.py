"""This project: ``Embedder`` on a runtime named in the environment, ``auto`` by default."""

from __future__ import annotations

import os

from benchmarks.peer_workers.serve import Embed, serve
from sa_runtime.embedder import Embedder
from sa_runtime.runners.opening import open_runner


def open_peer(model: str) -> tuple[Embed, dict[str, str]]:
    runner = open_runner(model, os.environ.get("SA_DEPLOY_RUNTIME", "auto"))
    details = {
        "runtime": runner.label,
        "precision": runner.precision,
        **runner.details,
        "reason": runner.reason,
    }
    return Embedder.from_runner(runner).embed, details


if __name__ == "__main__":
    serve(open_peer)
