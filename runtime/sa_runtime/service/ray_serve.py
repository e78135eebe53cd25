"""The service on Ray Serve: replicas on one machine or many, as many as the load asks for.

The application is the same in every replica, with its own models, queue and limits. In front of
them stands Ray's proxy, which hands each request to the replica that has the fewest.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sa_runtime.artefact.metadata import read_contract
from sa_runtime.errors import ContractError, InputError, bad_value
from sa_runtime.service.models import ModelSettings
from sa_runtime.service.server import Address
from sa_runtime.system.extras import require
from sa_runtime.system.ray_cluster import connected

NAME = "sa-deploy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many processes answer, and what each gets.

    Attributes:
        least, most: replicas; in between, as many as keep ``requests`` in each.
        requests: that are answered by one replica at a time, on average.
        cpus, gpus: that Ray sets aside for each.
        models: that one holds at a time, the others are opened when they are asked for; all by
            default.
        address: of a running cluster; a new one on this machine by default.
    """

    least: int = 1
    most: int = 1
    requests: float = 32.0
    cpus: float = 1.0
    gpus: float = 0.0
    models: int | None = None
    address: str | None = None


def application(
    files: Mapping[str, Path],
    settings: ModelSettings,
    keys: Path | None,
    replicas: Replicas,
    *,
    deployed_by: str = "",
) -> Any:
    """The deployment, bound and ready for ``serve.run``; ``deployed_by`` tells it from others.

    Raises:
        MissingPackageError: Ray Serve is not installed.
    """
    spaces = {name: read_contract(path).space for name, path in files.items()}
    serve = require("ray.serve", extra="scale", purpose="a service on Ray")
    threads = max(int(replicas.cpus), 1)
    if not replicas.gpus:
        options = {"threads": threads, **settings.options}
        settings = dataclasses.replace(settings, options=options)
    few = replicas.models is not None and replicas.models < len(files)

    def build() -> Any:
        """In the replica, which opens the models and lets their canaries pass before it answers."""
        from sa_runtime.service.app import Service
        from sa_runtime.service.keys import Keys
        from sa_runtime.service.models import Models
        from sa_runtime.service.ray_models import InTurns

        holders = None if keys is None else Keys(keys)
        if few:
            return InTurns(files, settings, holders, replicas.models or 1)
        return Service(Models(dict(files), settings), keys=holders).app

    @serve.ingress(build)
    class Embedding:
        """One replica."""

        def spaces(self) -> dict[str, str]:
            """Feature spaces by the names of the models."""
            return spaces

        def deployed_by(self) -> str:
            """Who put it there."""
            return deployed_by

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

    On a cluster that serves already, replica after replica is replaced by one of the new artefacts,
    and requests are answered meanwhile. The process that served before sees it and ends.

    Raises:
        MissingPackageError: Ray Serve is not installed.
        InputError: no such cluster, an address that is open to anybody, or models that do not open.
        ContractError: the cluster serves a model of that name and of another feature space.
    """
    if address.certificate is not None:
        raise bad_value(
            "certificate", str(address.certificate), "on Ray, TLS is done by what stands before it"
        )
    address.check(keys=keys is not None)
    settings.check()
    me = secrets.token_hex(8)
    found = {name: path.resolve() for name, path in files.items()}
    # Reads the contracts, before a cluster is started for them.
    bound = application(found, settings, keys, replicas, deployed_by=me)
    serve = require("ray.serve", extra="scale", purpose="a service on Ray")
    with connected(replicas.address, purpose="a service on Ray"):
        serve.start(http_options={"host": address.host, "port": address.port})
        _refuse_other_spaces(serve, files)
        ours = NAME not in serve.status().applications
        try:
            try:
                serve.run(bound, name=NAME, route_prefix="/")
            except RuntimeError as exc:
                raise InputError(
                    f"the replicas do not start: {str(exc).strip().splitlines()[-1]}; serve the "
                    "same models without Ray to see why"
                ) from exc
            ours = True
            on_start(address.url)
            with _watching(serve, me) as replaced:
                replaced.wait()
            ours = False  # another process has put its own in the place
        finally:
            if ours:
                serve.shutdown()


@contextmanager
def _watching(serve: Any, me: str) -> Iterator[threading.Event]:
    """An event that is set when another process has deployed its own.

    A thread asks, so that a signal meets no call of Ray's.
    """
    replaced, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if not _still_ours(serve, me):
                replaced.set()
                return

    watcher = threading.Thread(target=watch, name="sa-deployed-by", daemon=True)
    watcher.start()
    try:
        yield replaced
    finally:
        over.set()
        watcher.join(15)


def _still_ours(serve: Any, me: str) -> bool:
    """Whether no other process has deployed its own since; a replica that dies tells nothing."""
    try:
        if NAME not in serve.status().applications:
            return False
        found: str = serve.get_app_handle(NAME).deployed_by.remote().result(timeout_s=10)
    except Exception:  # of Ray's many
        return True
    return found == me


def _refuse_other_spaces(serve: Any, files: Mapping[str, Path]) -> None:
    """Stored vectors would not compare any more.

    Raises:
        ContractError: a model that is served has the name of one of another space.
    """
    if NAME not in serve.status().applications:
        return
    running = serve.get_app_handle(NAME).spaces.remote().result(timeout_s=60)
    for name, path in files.items():
        space = read_contract(path).space
        if running.get(name, space) != space:
            raise ContractError(
                f"{path}: holds vectors of space {space}, and the cluster serves those of "
                f"{running[name]} as {name!r}: they do not compare. Give it another name: "
                f"OTHER={path}"
            )
