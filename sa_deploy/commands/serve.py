"""``sa-deploy serve``: models behind HTTP."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import (
    BatchSize,
    Cache,
    Device,
    Embedding,
    JsonOutput,
    RayAddress,
    Runtime,
    Threads,
    runner_options,
)
from sa_deploy.output import note, print_json

if TYPE_CHECKING:
    from sa_runtime.service.models import Models


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help="Artefacts to serve: FILE, which requests call by its name without suffix, or "
            "NAME=FILE. Requests that name none take the first.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; one that others reach asks for --keys or --client-ca.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")
    ] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of the clients' API keys: lines of a name and the key's SHA-256. It is read "
            "again when it changes; without it no key is asked for.",
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Gallery of `sa-deploy index` in which POST /search finds people; without it "
            "there is no /search.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate in PEM, for HTTPS; plain HTTP by default."),
    ] = None,
    private_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Private key in PEM of the certificate; by default it is in the same file.",
        ),
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certificates in PEM: clients must show one that these have signed (mTLS). By "
            "default none is asked for.",
        ),
    ] = None,
    runtime: Runtime = "auto",
    cache: Cache = None,
    device: Device = None,
    embedding: Embedding = None,
    threads: Threads = None,
    lanes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Batches that are run at a time, each with its own --threads.",
        ),
    ] = 1,
    batch_size: BatchSize = 32,
    max_delay_ms: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="MILLISECONDS",
            help="Run a batch that is not full once its oldest crop has waited this long.",
        ),
    ] = 5.0,
    queue_crops: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="CROPS",
            help="Crops that may wait for a batch; 429 beyond.",
        ),
    ] = 128,
    max_images: Annotated[
        int, typer.Option(min=1, metavar="CROPS", help="People in one request; 413 beyond.")
    ] = 64,
    max_body_mb: Annotated[
        float, typer.Option(metavar="MB", help="Size of one request; 413 beyond.")
    ] = 32.0,
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="PIXELS", help="Pixels of one image; 413 beyond.")
    ] = 25_000_000,
    max_requests: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests answered at a time; 429 beyond.")
    ] = 256,
    timeout_ms: Annotated[
        float,
        typer.Option(metavar="MILLISECONDS", help="Time of a request; 504 beyond."),
    ] = 10_000.0,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Time to answer what is accepted, after SIGTERM."
        ),
    ] = 30.0,
    drain_delay_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Go on this long after SIGTERM, not ready any more, so that balancers hear of it.",
        ),
    ] = 0.0,
    ray_replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Serve on Ray with up to this many processes, as many as the load asks for and "
            "two at least; without it, by this one.",
        ),
    ] = None,
    ray_models: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Models that each of these processes holds at a time; it opens others when "
            "they are asked for. All by default.",
        ),
    ] = None,
    ray_address: RayAddress = None,
    json_output: JsonOutput = False,
) -> None:
    """Serve models over HTTP: batches across requests, limits, draining.

    Requests of many clients go to a model in batches. The service listens once the canary crops of
    every model came out right; SIGTERM and Ctrl-C let it answer what it has accepted, then it ends.

    Examples:
        sa-deploy serve model.onnx --port 8000
        sa-deploy serve fast=sa.engine best=sa.onnx --batch-size 16 --max-delay-ms 10
    """
    from sa_runtime.errors import bad_value
    from sa_runtime.system.extras import require

    require("fastapi", extra="serve", purpose="a service")
    require("uvicorn", extra="serve", purpose="a service")
    from sa_runtime.service.limits import Limits
    from sa_runtime.service.models import ModelSettings, named_files
    from sa_runtime.service.ray_serve import Replicas, serve_on_ray
    from sa_runtime.service.server import Address, serve_models

    limits = Limits(
        max_body_mb=max_body_mb,
        max_pixels=max_pixels,
        max_images=max_images,
        max_requests=max_requests,
        queue_crops=queue_crops,
        timeout_ms=timeout_ms,
    )
    settings = ModelSettings(
        runtime=runtime,
        options=runner_options(cache=cache, device=device, embedding=embedding, threads=threads),
        batch_size=batch_size,
        max_delay_ms=max_delay_ms,
        lanes=lanes,
        limits=limits,
    )
    address = Address(
        host=host,
        port=port,
        certificate=certificate,
        private_key=private_key,
        client_ca=client_ca,
    )
    if ray_replicas is None:
        for name, value in (("ray_models", ray_models), ("ray_address", ray_address)):
            if value is not None:
                raise bad_value(name, value, "goes with `ray_replicas`")
    else:
        if gallery is not None:
            raise bad_value("gallery", str(gallery), "does not go with `ray_replicas`")
        on_gpu = float((device or "").startswith(("cuda", "tensorrt")))
        replicas = Replicas(
            least=min(2, ray_replicas),
            most=ray_replicas,
            requests=batch_size,
            gpus=on_gpu,
            models=ray_models,
            address=ray_address,
        )
        serve_on_ray(named_files(models), settings, address, replicas, keys=keys, on_start=_note)
        return
    serve_models(
        named_files(models),
        settings,
        address,
        keys=keys,
        gallery=gallery,
        drain_s=drain_seconds,
        drain_delay_s=drain_delay_seconds,
        on_start=partial(_tell, as_json=json_output),
    )
    note("drained: every accepted request is answered")


def _tell(url: str, served: Models, *, as_json: bool) -> None:
    """Say that requests are taken."""
    for one in served:
        if reason := getattr(one.runner, "reason", ""):
            note(f"{one.name}: auto took {reason}")
    _note(url, ", ".join(one.name for one in served))
    if as_json:
        print_json({"url": url, "models": {one.name: one.contract.space for one in served}})
        sys.stdout.flush()


def _note(url: str, names: str = "on Ray") -> None:
    note(f"serving {names} at {url}; Ctrl-C ends it")
