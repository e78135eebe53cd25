"""The service on a real Ray cluster of this machine, whose replicas and nodes are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sa_runtime.errors import InputError
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import Replicas, serve_on_ray
from sa_runtime.service.server import Address

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

pytest_plugins = ("tests.tiny_onnx",)

KILLED = """
import json, logging, os, sys, time
from pathlib import Path
import httpx, numpy as np, ray
from ray import serve
from ray.cluster_utils import Cluster
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import NAME, Replicas, application
from tests.runtime.service.load import Load

model, port, logs = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

def note_answers():  # in every process of Ray's: a line for each request that it answers
    log = logging.getLogger("sa_runtime.service.access")
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(logs / f"{os.getpid()}.log", delay=True)
    handler.setFormatter(logging.Formatter("%(request)s %(status)d"))
    log.addHandler(handler)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="error",
         runtime_env={"worker_process_setup_hook": note_answers})
settings = ModelSettings(runtime="onnxruntime", batch_size=8, max_delay_ms=5)
bound = application({"tiny": model}, settings, None, Replicas(least=2, most=2, cpus=1))
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(bound, name=NAME, route_prefix="/")
images = np.random.default_rng(0).integers(0, 256, (16, 32, 16, 3), dtype=np.uint8)
url = f"http://127.0.0.1:{port}"

# The proxies of both nodes listen on one port here: each must know where to, as for a balancer.
until, ready = time.monotonic() + 120, 0
while ready < 30:
    assert time.monotonic() < until, "the proxies are not ready"
    ready = ready + 1 if httpx.get(f"{url}/v2/health/ready").status_code == 200 else 0
    time.sleep(0 if ready else 0.2)
load = Load(url, images, timeout_s=60)
load.start(2, with_ids=4)

def replicas():
    found = serve.status().applications[NAME].deployments[NAME]
    return found.replica_states.get("RUNNING", 0)

def settled(limit):
    until = time.monotonic() + limit
    while time.monotonic() < until and replicas() < 2:
        time.sleep(0.2)
    return replicas()

time.sleep(2)
names = [a["name"] for a in ray.util.list_named_actors(all_namespaces=True) if NAME in a["name"]]
victim = ray.get_actor(next(n for n in names if n.startswith("SERVE_REPLICA")), namespace="serve")
ray.kill(victim, no_restart=True)
killed = time.monotonic()
time.sleep(2)
after_replica = settled(120)
cluster.remove_node(other)
lost = time.monotonic()
time.sleep(8)
load.stop()
print("RESULT", json.dumps({
    "good": len(load.good), "failed": load.failed, "wrong": len(load.wrong),
    "after_replica": after_replica,
    "good_after_kill": sum(t > killed for t in load.good),
    "good_after_loss": sum(t > lost + 2 for t in load.good), "outcomes": load.outcomes}))
sys.stdout.flush()
os._exit(0)
"""

CHANGED = """
import json, os, subprocess, sys, time
from pathlib import Path
import numpy as np
from ray.cluster_utils import Cluster
from tests.runtime.service.load import Load

first, second, other = map(Path, sys.argv[1:4])
port = sys.argv[4]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
words = ["--ray-replicas", "2", "--ray-address", cluster.address, "--port", port]
words += ["--runtime", "onnxruntime"]

def command(file):
    return subprocess.Popen(
        [sys.executable, "-m", "sa_deploy", "serve", f"tiny={file}", *words],
        stderr=subprocess.PIPE, text=True)

def serving(process):
    for line in process.stderr:
        if "serving" in line:
            return True
    return False

one = command(first)
assert serving(one)
images = np.random.default_rng(0).integers(0, 256, (16, 32, 16, 3), dtype=np.uint8)
load = Load(f"http://127.0.0.1:{port}", images, timeout_s=200)
load.start(4)
time.sleep(2)
two = command(second)
assert serving(two)
replaced = time.monotonic()
one_ended = one.wait(150)
refused = command(other)
said = refused.communicate(timeout=150)[1]
time.sleep(3)
load.stop()
two.terminate()
two_ended = two.wait(100)
print("RESULT", json.dumps({
    "good": len(load.good), "failed": load.failed, "wrong": len(load.wrong), "one": one_ended,
    "two": two_ended, "good_after": sum(t > replaced for t in load.good),
    "refused": refused.returncode, "said": said}))
sys.stdout.flush()
os._exit(0)
"""

IN_TURNS = """
import json, os, sys, threading
from pathlib import Path
import numpy as np, ray
from ray import serve
from sa_deploy import Client
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import NAME, Replicas, application

folder, port = Path(sys.argv[1]), int(sys.argv[2])
names = ["a", "b", "c"]
ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
settings = ModelSettings(runtime="onnxruntime", batch_size=8, max_delay_ms=2)
files = {name: folder / f"{name}.onnx" for name in names}
bound = application(files, settings, None, Replicas(least=2, most=2, models=2))
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(bound, name=NAME, route_prefix="/")
url = f"http://127.0.0.1:{port}"
images = np.load(folder / "images.npy")
good, wrong = [], []

def ask(name):
    expected = np.load(folder / f"{name}.npy")
    for _ in range(6):  # each time by new connections, so that either replica may be asked
        with Client(url, model=name, timeout_s=200) as client:
            for _ in range(5):
                found = client.embed(images)
                (good if np.allclose(found, expected, atol=2e-6) else wrong).append(name)

threads = [threading.Thread(target=ask, args=(name,)) for name in names * 2]
for thread in threads: thread.start()
for thread in threads: thread.join()
import httpx
unknown = httpx.post(f"{url}/v2/models/x/infer")
print("RESULT", json.dumps({
    "good": {name: good.count(name) for name in names}, "wrong": wrong,
    "unknown": [unknown.status_code, unknown.json()["error"]],
    "ready": httpx.get(f"{url}/v2/health/ready").status_code}))
sys.stdout.flush()
os._exit(0)
"""

GROWN = """
import json, os, sys, time
from pathlib import Path
import numpy as np, ray
from ray import serve
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.ray_serve import NAME, Replicas, application
from tests.runtime.service.load import Load

model, port = Path(sys.argv[1]), int(sys.argv[2])
ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
settings = ModelSettings(runtime="onnxruntime", batch_size=8, max_delay_ms=100)
replicas = Replicas(least=1, most=3, requests=2, cpus=1)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(application({"tiny": model}, settings, None, replicas), name=NAME, route_prefix="/")

def running():
    found = serve.status().applications[NAME].deployments[NAME]
    return found.replica_states.get("RUNNING", 0)

images = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)
load = Load(f"http://127.0.0.1:{port}", images, timeout_s=200)
at_first = running()
load.start(4, with_ids=4)
until = time.monotonic() + 240
while running() < 3 and time.monotonic() < until:
    time.sleep(0.5)
grown = running()
time.sleep(3)
load.stop()
print("RESULT", json.dumps({
    "good": len(load.good), "failed": load.failed, "wrong": len(load.wrong),
    "at_first": at_first, "grown": grown,
    "not 200": [status for status in load.outcomes.values() if status != 200]}))
sys.stdout.flush()
os._exit(0)
"""


def result_of(script: str, *words: object) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, words)]
    # Ray's processes are nice by 15, and on a machine that others use they do not start in time.
    patient = {
        **os.environ,
        "RAY_worker_niceness": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=590, check=False, env=patient
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-5000:]
    print(lines[0][:1000])
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return found


@pytest.mark.soak
def test_a_model_is_changed_under_load_and_another_space_is_refused(tmp_path: Path) -> None:
    from tests.tiny_onnx import write_tiny_onnx

    size: dict[str, Any] = {"height": 32, "width": 16, "dim": 12, "max_batch": None}
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        write_tiny_onnx(tmp_path / f"{name}.onnx", seed=seed, **size)
    files = [tmp_path / f"{name}.onnx" for name in ("first", "second", "other")]
    found = result_of(CHANGED, *files, 18767)
    assert (found["failed"], found["wrong"]) == ([], 0)
    assert found["good_after"] > 0
    assert (found["one"], found["two"]) == (0, 143)
    assert found["refused"] == 2
    assert "they do not compare. Give it another name" in " ".join(found["said"].split())


@pytest.mark.soak
def test_replicas_hold_models_in_turns(tmp_path: Path) -> None:
    from tests.tiny_onnx import write_tiny_onnx

    images = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    for seed, name in enumerate("abc"):
        model = write_tiny_onnx(
            tmp_path / f"{name}.onnx", height=32, width=16, dim=12, seed=seed, max_batch=None
        )
        np.save(tmp_path / f"{name}.npy", model.embed(images))
    found = result_of(IN_TURNS, tmp_path, 18769)
    assert (found["good"], found["wrong"]) == ({"a": 60, "b": 60, "c": 60}, [])
    assert found["unknown"] == [404, "no model 'x'; expected one of a, b, c"]
    assert found["ready"] == 200


@pytest.mark.soak
def test_replicas_become_more_where_requests_wait(tiny_model: TinyModel) -> None:
    """Eight clients, and two requests a replica are meant to be answered at a time."""
    found = result_of(GROWN, tiny_model.path, 18771)
    assert (found["at_first"], found["grown"]) == (1, 3)
    assert found["good"] > 100
    assert (found["failed"], found["wrong"], found["not 200"]) == ([], 0, [])


@pytest.mark.soak
def test_a_replica_and_a_node_are_killed_under_load(tiny_model: TinyModel, tmp_path: Path) -> None:
    found = result_of(KILLED, tiny_model.path, 18765, tmp_path)
    outcomes: dict[str, int] = found.pop("outcomes")
    got = {name for name, status in outcomes.items() if status == 200}
    lines = [
        line.split() for log in tmp_path.glob("*.log") for line in log.read_text().splitlines()
    ]
    answered = Counter(name for name, status in lines if name in outcomes and status == "200")
    lost = answered.keys() - got
    print(f"{len(outcomes)} with an id: {Counter(outcomes.values())}; answered, not got: {lost}")
    assert found["wrong"] == 0
    assert found["good_after_kill"] > 0
    assert found["after_replica"] == 2
    assert found["good_after_loss"] > 0
    # Every request has one end, at its client and in the replicas: an answer or a failure.
    assert max(answered.values()) == 1
    assert got <= answered.keys()
    assert all(outcomes[name] in (0, 500, 503) for name in outcomes.keys() - got), found
    assert len(lost) <= 8  # answered by a replica that died before the proxy had it
    # Whoever was in a replica that died is told so, and nobody else.
    assert len(outcomes) - len(got) + len(found["failed"]) <= 16, found


def test_what_ray_does_not_do_is_refused(tmp_path: Path) -> None:
    files = {"a": tmp_path / "a.onnx"}
    with pytest.raises(InputError, match="on Ray, TLS is done by what stands before it"):
        serve_on_ray(files, ModelSettings(), Address(certificate=tmp_path / "c.pem"), Replicas())
    with pytest.raises(InputError, match="others reach this address"):
        serve_on_ray(files, ModelSettings(), Address(host="0.0.0.0"), Replicas())
