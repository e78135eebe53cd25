"""The service on Ray Serve: replicas on one machine or many, as many as the load asks for.

The application is the same in every replica, with its own models, queue and limits. In front of
them stands Ray's proxy, which hands each request to the replica that has the fewest.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import InputError, bad_value
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.server import Address
from sa_runtime.system.extras import require

NAME = "sa-deploy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many processes answer, and what each gets.

    Attributes:
        least, most: replicas; in between, as many as keep ``requests`` in each.
        requests: that are answered by one replica at a time, on average.
        cpus, gpus: that Ray sets aside for each.
        address: of a running cluster; a new one on this machine by default.
    """

    least: int = 1
    most: int = 1
    requests: float = 32.0
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None


def application(
    files: Mapping[str, Path], settings: ModelSettings, keys: Path | None, replicas: Replicas
) -> Any:
    """The deployment, bound and ready for ``serve.run``.

    Raises:
        MissingPackageError: Ray Serve is not installed.
    """
    serve = require("ray.serve", extra="scale", purpose="a service on Ray")
    threads = max(int(replicas.cpus), 1)
    if not replicas.gpus:
        options = {"threads": threads, **settings.options}
        settings = dataclasses.replace(settings, options=options)

    def build() -> Any:
        """In the replica, which opens the models and lets their canaries pass before it answers."""
        from sa_runtime.service.app import Service
        from sa_runtime.service.keys import Keys
        from sa_runtime.service.models import Models

        holders = None if keys is None else Keys(keys)
        return Service(Models(dict(files), settings), keys=holders).app

    @serve.ingress(build)
    class Embedding:
        """One replica."""

    return (
        serve.deployment(Embedding)
        .options(
            name=NAME,
            ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
            autoscaling_config={
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": replicas.requests,
            },
            max_ongoing_requests=settings.limits.max_requests,
            graceful_shutdown_timeout_s=settings.limits.timeout_ms / 1000 + 10,
        )
        .bind()
    )


def serve_on_ray(
    files: Mapping[str, Path],
    settings: ModelSettings,
    address: Address,
    replicas: Replicas,
    *,
    keys: Path | None = None,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve artefacts by replicas until this process is stopped.

    Raises:
        MissingPackageError: Ray Serve is not installed.
        InputError: no such cluster, an address that is open to anybody, or models that do not open.
    """
    if address.certificate is not None:
        raise bad_value(
            "certificate", str(address.certificate), "on Ray, TLS is done by what stands before it"
        )
    address.check(keys=keys is not None)
    for path in files.values():
        read_contract(path)  # before a cluster is started for it
    bound = application({n: p.resolve() for n, p in files.items()}, settings, keys, replicas)
    ray = require("ray", extra="scale", purpose="a service on Ray")
    serve = require("ray.serve", extra="scale", purpose="a service on Ray")
    try:
        ray.init(
            address=replicas.address,
            include_dashboard=False if replicas.address is None else None,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except ConnectionError as exc:
        raise bad_value(
            "address", replicas.address, f"no cluster answers ({exc}); start one with `ray start`"
        ) from exc
    try:
        serve.start(http_options={"host": address.host, "port": address.port})
        try:
            serve.run(bound, name=NAME, route_prefix="/")
        except RuntimeError as exc:
            raise InputError(
                f"the replicas do not start: {str(exc).strip().splitlines()[-1]}; serve the same "
                "models without Ray to see why"
            ) from exc
        on_start(address.url)
        while True:
            time.sleep(1)
    finally:
        serve.shutdown()
        ray.shutdown()
