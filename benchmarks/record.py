"""What a benchmark found, with the machine, the commit and the day."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path


def record(name: str, found: Mapping[str, Any], out: Path | None, *, commit: str = "") -> None:
    """Print what was found as JSON, and write it to ``out`` where one is given.

    Args:
        name: of the benchmark; with the version of its fields, ``peers/1``.
        found: its figures.
        out: file to write.
        commit: of the source, where the machine holds no checkout.
    """
    environment = dataclasses.asdict(this_environment(commit=True))
    environment["commit"] = environment["commit"] or commit
    content = {
        "schema": f"sa-deploy.benchmarks.{name}",
        **found,
        "environment": environment,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(content, indent=2)
    print(text)
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(text + "\n")
