"""One training step of the SA ResNet-50: bf16 and channels-last against FP32 and contiguous.

Run: ``python -m benchmarks.training_step [--out FILE.json]`` (some two minutes on two cores).

Both networks hold the same weights and see the same batch; their steps alternate in one process, so
that a machine that slows down slows both. A step is what ``sa-deploy train --recipe sa`` does: ten
classifiers, their summed cross entropy, backward, SGD with momentum.
"""

from __future__ import annotations

import argparse
import copy
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import record
from sa_training.losses import classification_losses
from sa_training.network import SANetwork
from sa_training.optimisation import optimizer_of
from sa_training.overrides import override
from sa_training.pixels import network_input
from sa_training.recipes import sa

HEIGHT, WIDTH, CLASSES = 256, 128, 751
WARM_UP = 2


def step_of(
    network: SANetwork, *, fast: bool, device: torch.device, batch: int
) -> Callable[[], float]:
    """A closure that does one step and returns its loss."""
    network = copy.deepcopy(network).to(device).train()
    if fast:
        network = network.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(network, sa())
    generator = torch.Generator().manual_seed(0)
    shape = (batch, HEIGHT, WIDTH, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(0, CLASSES, (batch,), generator=generator).to(device)

    def step() -> float:
        x = network_input(images)
        if not fast:
            x = x.contiguous()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            output = network(x)
        loss = torch.stack(classification_losses(output, labels)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def measure(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(WARM_UP + rounds):
        for name, step in steps.items():
            began = time.perf_counter_ns()
            step()
            if round_ >= WARM_UP:
                seconds[name].append((time.perf_counter_ns() - began) / 1e9)
    return seconds


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in found.items()}
    wanted = [
        flag for flag in ("avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()
    ]
    return f"{fields.get('model name', 'unknown')} ({', '.join(wanted) or 'no bf16'})"


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--commit", default="", help="stamp, where there is no git")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    recipe = override(sa(), {"network.height": HEIGHT, "network.width": WIDTH})
    network = SANetwork(recipe.network_for(CLASSES))
    seconds = measure(
        {
            "fp32 contiguous": step_of(network, fast=False, device=device, batch=arguments.batch),
            "bf16 channels-last": step_of(network, fast=True, device=device, batch=arguments.batch),
        },
        arguments.rounds,
    )
    slow, fast = (np.array(values) for values in seconds.values())
    found = {
        "step": f"SA {recipe.network.backbone}, {HEIGHT}x{WIDTH}, batch {arguments.batch}",
        "ratio_p50": float(np.median(slow) / np.median(fast)),
        "ratio_each_round": (slow / fast).round(3).tolist(),
        "seconds": {
            name: {
                **{f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)},
                "n": len(values),
            }
            for name, values in seconds.items()
        },
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
    }
    record("training-step/2", found, arguments.out, commit=arguments.commit)


if __name__ == "__main__":
    main()
