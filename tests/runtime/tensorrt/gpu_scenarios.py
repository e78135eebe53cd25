"""What the runner must do, one scenario a function, on a simulated GPU.

Run in a process of its own, because the driver must be loaded before anything looks for one::

    python -m tests.runtime.tensorrt.gpu_scenarios LIBCUDA STUB_SITE BINDING OUT.json

writes one entry per scenario: "" where it passed, its traceback where not.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from tests.runtime.tensorrt import gpu_batches, gpu_engines  # noqa: F401  they fill the registry
from tests.runtime.tensorrt.gpu_registry import SCENARIOS
from tests.runtime.tensorrt.simulated_gpu import World

__all__ = ("SCENARIOS", "main")


def main(libcuda: str, site: str, binding: str, out: str) -> None:
    """Run every scenario in a world of its own state."""
    sys.path.insert(0, site)
    world = World(Path(libcuda), binding)
    results = {}
    for name, function in SCENARIOS.items():
        import tensorrt

        world.use(tensorrt)
        world.contexts.clear()
        world.refuse = world.fail_execution = world.reuse_contexts = False
        world.reset()
        try:
            function(world)
            results[name] = ""
        except BaseException:
            results[name] = traceback.format_exc()
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
