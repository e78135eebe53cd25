"""The service on a real Ray cluster of this machine, whose replicas and nodes are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sa_runtime.errors import InputError
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import Replicas, serve_on_ray
from sa_runtime.service.server import Address

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

KILLED = """
import json, logging, os, sys, threading, time
from pathlib import Path
import httpx, numpy as np, ray
from ray import serve
from ray.cluster_utils import Cluster
from sa_deploy import Client
from sa_runtime.errors import SaDeployError
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import NAME, Replicas, application

model, port = Path(sys.argv[1]), int(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
settings = ModelSettings(runtime="onnxruntime", batch_size=8, max_delay_ms=5)
bound = application({"tiny": model}, settings, None, Replicas(least=2, most=2, cpus=1))
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(bound, name=NAME, route_prefix="/")
url = f"http://127.0.0.1:{port}"
images = np.random.default_rng(0).integers(0, 256, (16, 32, 16, 3), dtype=np.uint8)
with Client(url) as client:
    expected = client.embed(images)
good, failed, wrong, stop = [], [], [], threading.Event()

def ask():
    with Client(url, timeout_s=20) as client:
        while not stop.is_set():
            try:
                found = client.embed(images)
            except SaDeployError as error:
                failed.append(str(error)[:200])
                continue
            (good if np.allclose(found, expected, atol=2e-6) else wrong).append(time.monotonic())

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()

def replicas():
    found = serve.status().applications[NAME].deployments[NAME]
    return found.replica_states.get("RUNNING", 0)

def settled(limit):
    until = time.monotonic() + limit
    while time.monotonic() < until and replicas() < 2:
        time.sleep(0.2)
    return replicas()

time.sleep(1)
names = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True) if NAME in a["name"]]
victim = ray.get_actor(next(n for n in names if n.startswith("SERVE_REPLICA")), namespace="serve")
ray.kill(victim, no_restart=True)
killed = time.monotonic()
time.sleep(2)
after_replica = settled(60)
cluster.remove_node(other)
lost = time.monotonic()
time.sleep(8)
stop.set()
for thread in threads: thread.join()
print("RESULT", json.dumps({
    "good": len(good), "failed": failed, "wrong": len(wrong), "after_replica": after_replica,
    "good_after_kill": sum(t > killed for t in good),
    "good_after_loss": sum(t > lost + 2 for t in good)}))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.soak
def test_a_replica_and_a_node_are_killed_under_load(tiny_model: TinyModel) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tiny_model.path), "18765"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    assert found["wrong"] == 0
    assert found["good_after_kill"] > 0
    assert found["after_replica"] == 2
    assert found["good_after_loss"] > 0
    # Whoever was in a replica that died is told so, and nobody else.
    assert len(found["failed"]) <= 16, found


def test_what_ray_does_not_do_is_refused(tmp_path: Path) -> None:
    files = {"a": tmp_path / "a.onnx"}
    with pytest.raises(InputError, match="on Ray, TLS is done by what stands before it"):
        serve_on_ray(files, ModelSettings(), Address(certificate=tmp_path / "c.pem"), Replicas())
    with pytest.raises(InputError, match="others reach this address"):
        serve_on_ray(files, ModelSettings(), Address(host="0.0.0.0"), Replicas())
