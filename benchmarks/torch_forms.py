"""A trained network in torch's forms on one device, in turns: eager, compiled, TorchScript.

Rates are those of whole batches of uint8 crops that lie on the device already, the median of
timed batches; every form's vectors are held to float32 on the processor::

    python -m benchmarks.torch_forms CHECKPOINT [--device cuda] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sa_export.deploy import DeployNetwork, GraphSpec
from sa_runtime.system.environment import this_environment
from sa_training.checkpoints import load_checkpoint

SCHEMA = "sa-deploy.benchmarks.torch-forms/1"
BATCHES = (1, 8, 32, 128)
ROUNDS, TIMED = 5, 20

Form = Callable[[Tensor], Tensor]


def forms_of(path: Path, device: torch.device) -> dict[str, Form]:
    """Every form, on the device."""
    network = load_checkpoint(path).network
    found: dict[str, Form] = {}
    for name, compute in (("fp32", "fp32"), ("fp16", "fp16")):
        deployed = DeployNetwork(network, GraphSpec(compute=compute)).to(device).eval()  # type: ignore[arg-type]
        deployed.base.to(memory_format=torch.channels_last)
        found[f"eager {name}"] = deployed
        if compute == "fp16":
            found[f"compiled {name}"] = torch.compile(deployed, dynamic=True)
    example = torch.zeros(
        (8, network.config.height, network.config.width, 3), dtype=torch.uint8, device=device
    )
    traced: Form = torch.jit.trace(found["eager fp32"], example, check_trace=False)  # type: ignore[no-untyped-call]
    found["torchscript fp32"] = traced
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    config = load_checkpoint(arguments.checkpoint).network.config
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 256, (max(BATCHES), config.height, config.width, 3)).astype(np.uint8)
    images = torch.from_numpy(crops)
    reference = DeployNetwork(load_checkpoint(arguments.checkpoint).network, GraphSpec()).eval()
    rows = []
    with torch.inference_mode():
        forms = forms_of(arguments.checkpoint, device)
        wanted = reference(images)
        on_device = images.to(device)
        cosine = {
            name: float((form(on_device).float().cpu() * wanted).sum(dim=1).min())
            for name, form in forms.items()
        }
        for batch in BATCHES:
            given = on_device[:batch].contiguous()
            seconds: dict[str, list[float]] = {name: [] for name in forms}
            for form in forms.values():
                for _ in range(5):
                    form(given)
            for _ in range(ROUNDS):
                for name, form in forms.items():
                    for _ in range(TIMED):
                        _wait(device)
                        began = time.perf_counter()
                        form(given)
                        _wait(device)
                        seconds[name].append(time.perf_counter() - began)
            for name, times in seconds.items():
                median = statistics.median(times)
                rows.append(
                    {
                        "form": name,
                        "batch": batch,
                        "latency_ms": 1000 * median,
                        "crops_per_s": batch / median,
                        "least_cosine": cosine[name],
                    }
                )
                print(f"{name:18} {batch:4} {1000 * median:8.2f} ms {batch / median:9.0f} crops/s")
    content = {
        "schema": SCHEMA,
        "network": f"{config.backbone}, {config.height}x{config.width}, {config.parts} parts",
        "rows": rows,
        "environment": dataclasses.asdict(this_environment()),
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
