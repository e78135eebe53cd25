"""The same weights through what users would run instead, on the same crops, in turns.

Run: ``python -m benchmarks.peers [--weights W.pt] [--int8 model.int8.onnx] [--install]``, some ten
minutes on two cores; ``--install`` makes the peers' environments under ``.venv-peers`` first.

Every contender is a process with the interpreter of its own environment. It gets crops of people as
a detector cuts them, BGR pixels of any size, and gives unit vectors: resize and normalisation are
part of what is timed, as each project does them. Without ``--weights`` the SA ResNet-50 at 384x128
gets random weights with a fixed seed: speed does not depend on them.

Ratios depend on the processor: one that computes in bf16 or has VNNI gains more from a lower
precision. ``percent_of_limit`` therefore stands beside them: the network's operations a second
against what this processor does at most at the same precision, by the roofline of ``sa-deploy
bench``, measured before and after the rounds (the better one counts).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from sa_runtime.artefact.metadata import read_contract
from sa_runtime.bench.client import Client
from sa_runtime.system.environment import this_environment
from sa_runtime.system.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = {
    "onnxruntime": ("onnxruntime", "opencv-python-headless"),
    "boxmot": ("boxmot[onnx,openvino]",),
}
BATCHES = (1, 16)
LIMIT_S = 2.0
"""Of the roofline at each precision, before and after the rounds."""
SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A contender.

    Attributes:
        name: for people.
        program: module of ``benchmarks.peer_workers``.
        environment: name below ``.venv-peers``; empty for this project's own.
        model: file, in the folder of prepared models or anywhere.
        variables: of the process's environment.
    """

    name: str
    program: str
    environment: str = ""
    model: Path
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> Path:
        if not self.environment:
            return Path(sys.executable)
        return ROOT / ".venv-peers" / self.environment / "bin" / "python"


def install() -> None:
    """Make the peers' environments from PyPI."""
    for name, packages in ENVIRONMENTS.items():
        folder = ROOT / ".venv-peers" / name
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        pip: list[str | Path] = [folder / "bin" / "pip", "install", "-q"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", *packages], check=True)


def prepare(weights: Path | None, folder: Path) -> dict[str, Path]:
    """The checkpoint, this project's artefact, and the plain export that the peers take."""
    import openvino
    import torch

    from sa_export.artefacts import Exporter
    from sa_export.crop_sets import validation_crops
    from sa_export.lowering import plain_pool
    from sa_export.options import ExportOptions
    from sa_training.attention_pool import lowered_to
    from sa_training.checkpoints import load_checkpoint, save_checkpoint
    from sa_training.network import SANetwork
    from sa_training.recipes import sa

    if weights is None:
        weights = folder / "random.pt"
        torch.manual_seed(SEED)
        save_checkpoint(weights, SANetwork(sa().network).eval(), sa(), 0, {})
    checkpoint = load_checkpoint(weights)
    config = checkpoint.network.config
    crops = validation_crops(None, height=config.height, width=config.width, limit=24)
    ours = Exporter(checkpoint, ExportOptions(), crops).write("onnx", folder)
    network = checkpoint.network.eval()

    class Plain(torch.nn.Module):
        """Normalised RGB in, the authors' test feature out: what users export."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network.embed(images)

    plain = folder / "resnet50_sa.onnx"  # BoxMOT takes the architecture from the name
    with lowered_to(plain_pool):
        program = torch.onnx.export(
            Plain().eval(),
            (torch.zeros(2, 3, config.height, config.width),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["images"],
            output_names=["output"],
            verbose=False,
        )
    assert program is not None
    program.save(plain)
    ir = folder / "resnet50_sa_openvino_model" / "resnet50_sa.xml"
    ir.parent.mkdir()
    openvino.save_model(openvino.Core().read_model(plain), ir, compress_to_fp16=False)
    return {"checkpoint": weights, "ours": ours.path, "plain": plain, "ir": ir.parent}


def peers(models: dict[str, Path], int8: Path | None) -> list[Peer]:
    """Everyone, the usual choice first."""
    found = [
        Peer(name="torch eager", program="torch_eager", model=models["checkpoint"]),
        Peer(
            name="ONNX Runtime, plain",
            program="onnxruntime_plain",
            environment="onnxruntime",
            model=models["plain"],
        ),
        Peer(
            name="BoxMOT ONNX", program="boxmot_reid", environment="boxmot", model=models["plain"]
        ),
        Peer(
            name="BoxMOT OpenVINO", program="boxmot_reid", environment="boxmot", model=models["ir"]
        ),
        Peer(
            name="sa-deploy, onnxruntime",
            program="sa_deploy_runtime",
            model=models["ours"],
            variables=(("SA_DEPLOY_RUNTIME", "onnxruntime"),),
        ),
        Peer(name="sa-deploy auto", program="sa_deploy_runtime", model=models["ours"]),
    ]
    if int8 is not None:
        found.append(Peer(name="sa-deploy auto, int8", program="sa_deploy_runtime", model=int8))
    return found


def people(folder: Path) -> Path:
    """Crops of the synthetic data set at their own sizes, as an ``.npz`` file."""
    from sa_runtime.datasets.synthetic import SyntheticConfig, write_synthetic
    from sa_runtime.decoding import read_image

    root = folder / "people"
    write_synthetic(
        root, SyntheticConfig(identities=12, cameras=4, distractors=0, junk=0, videos=0)
    )
    files = sorted((root / "bounding_box_test").glob("*.jpg"))[:48]
    arrays = {f"crop{index}": read_image(file) for index, file in enumerate(files)}
    np.savez(folder / "crops.npz", **arrays)  # type: ignore[arg-type]
    return folder / "crops.npz"


def measure(
    contenders: list[Peer], crops: Path, folder: Path, flops: int, args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Let them take turns; the processor's limits, and by contender images a second, latencies,
    memory, and cosines to torch eager."""
    rows: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        clients: dict[str, Client] = {}
        for peer in contenders:
            if not peer.python.exists():
                print(f"left out: {peer.name} (no {peer.python}; run with --install)")
                continue
            os.environ.update(dict(peer.variables))
            command = (str(peer.python), "-m", f"benchmarks.peer_workers.{peer.program}")
            client = stack.enter_context(Client(command))
            for name, _ in peer.variables:
                del os.environ[name]
            rows[peer.name] = client.ask("open", model=str(peer.model))
            client.ask("load", crops=str(crops))
            clients[peer.name] = client
            print(f"open: {peer.name} {rows[peer.name]['details']}", flush=True)
        limiter = stack.enter_context(Client())
        limits: dict[str, float] = limiter.ask("limits", seconds=LIMIT_S)["tflops"]
        speeds: dict[tuple[str, int], list[float]] = {}
        latencies: dict[tuple[str, int], list[float]] = {}
        for number in range(args.rounds):
            for name, client in clients.items():
                for batch in BATCHES:
                    found = client.ask("run", batch=batch, seconds=args.seconds)
                    count = len(found["latencies_ms"])
                    speeds.setdefault((name, batch), []).append(count * batch / found["wall_s"])
                    latencies.setdefault((name, batch), []).extend(found["latencies_ms"])
            print(f"round {number + 1} of {args.rounds}", flush=True)
        again = limiter.ask("limits", seconds=LIMIT_S)["tflops"]
        limits = {precision: max(value, again[precision]) for precision, value in limits.items()}
        expected: NDArray[np.float32] | None = None
        for name, client in clients.items():
            client.ask("embed", batch=16, out=str(folder / "vectors.npy"))
            vectors: NDArray[np.float32] = np.load(folder / "vectors.npy")
            expected = vectors if expected is None else expected
            cosine = (vectors * expected).sum(axis=1)
            precision = rows[name]["details"].get("precision", "fp32").partition("+")[0]
            limit = limits.get(precision)
            rows[name] |= {
                "precision": precision,
                "least_cosine": float(cosine.min()),
                "peak_memory_mb": client.ask("memory")["peak_mb"],
                "series": [
                    {
                        "batch": batch,
                        "images_per_s": median(speeds[name, batch]),
                        "rounds_images_per_s": speeds[name, batch],
                        "p50_ms": median(latencies[name, batch]),
                        "percent_of_limit": limit
                        and 100 * median(speeds[name, batch]) * flops / (limit * 1e12),
                    }
                    for batch in BATCHES
                ],
            }
    return limits, rows


def plot(rows: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.55 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(rows)[::-1]
    speeds = [rows[name]["series"][-1]["images_per_s"] for name in names]
    colours = ["tab:blue" if name.startswith("sa-deploy") else "0.6" for name in names]
    bars = axes.barh(names, speeds, color=colours)
    labels = [
        f" {speed:.1f}{_share(rows[name])}" for name, speed in zip(names, speeds, strict=True)
    ]
    axes.bar_label(bars, labels=labels, fontsize=9)
    axes.set_xlim(0, 1.35 * max(speeds))
    axes.set_xlabel(f"images a second, crops to vectors, batches of {BATCHES[-1]}")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _share(row: dict[str, Any]) -> str:
    """`` (87 % of fp32)``: of what the processor does at most at that precision."""
    percent = row["series"][-1]["percent_of_limit"]
    return "" if percent is None else f" ({percent:.0f} % of {row['precision']})"


def report(rows: dict[str, dict[str, Any]]) -> None:
    """Print every contender against torch eager and against plain ONNX Runtime."""
    bases = [name for name in ("torch eager", "ONNX Runtime, plain") if name in rows]
    for name, row in rows.items():
        print(f"{name}: cosine {row['least_cosine']:.5f}, {row['peak_memory_mb']:.0f} MB")
        for index, mine in enumerate(row["series"]):
            others = [rows[base]["series"][index] for base in bases]
            ratios = [
                f"x{mine['images_per_s'] / other['images_per_s']:.2f} of {base} "
                f"(p50 x{mine['p50_ms'] / other['p50_ms']:.2f})"
                for base, other in zip(bases, others, strict=True)
            ]
            percent = mine["percent_of_limit"]
            limit = "" if percent is None else f", {percent:.0f} % of {row['precision']} limit"
            print(
                f"  batch {mine['batch']}: {mine['images_per_s']:.1f} images/s, "
                f"p50 {mine['p50_ms']:.1f} ms{limit}; {'; '.join(ratios)}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, help="an SA ResNet-50; random ones by default")
    parser.add_argument("--int8", type=Path, help="an int8 artefact of the same network")
    parser.add_argument("--install", action="store_true", help="make the environments first")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    args = parser.parse_args()
    if args.install:
        install()
    os.chdir(ROOT)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["SA_DEPLOY_CACHE"] = str(folder / "cache")  # auto measures anew
        models = prepare(args.weights, folder)
        contract = read_contract(models["ours"])
        limits, rows = measure(
            peers(models, args.int8), people(folder), folder, contract.flops or 0, args
        )
    found = {
        "load_before": round(load, 2),
        "limits_tflops": limits,
        "network": contract.network,
        "flops": contract.flops,
        "peers": rows,
    }
    record("peers/2", found, args.out)
    machine = this_environment()
    processor = f"{machine.processor}, {machine.cores} cores"
    size = f"{contract.input.height}x{contract.input.width}"
    title = f"SA {contract.network['backbone']}, {size}, on {processor} (in brackets: of its limit)"
    plot(rows, title, args.out.with_suffix(".png"))
    print({precision: f"{value:.3f} TFLOPS" for precision, value in limits.items()})
    report(rows)


if __name__ == "__main__":
    main()
