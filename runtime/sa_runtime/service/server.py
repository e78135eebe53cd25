"""A service on a port: slow senders are cut off, a stop loses nothing that was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import ipaddress
import logging
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from sa_runtime.errors import IncompleteError, InputError, bad_value
from sa_runtime.service.app import Service
from sa_runtime.service.keys import Keys
from sa_runtime.service.limits import LARGEST
from sa_runtime.service.models import Models, ModelSettings
from sa_runtime.service.pem import check_pem, load_pair
from sa_runtime.service.protocol import guarded
from sa_runtime.sources.reader import quiet_opencv

_log = logging.getLogger(__name__)

_OTHER_FILES = 256
"""Beside connections: models, libraries, a gallery."""
SWITCH_S = 0.001
"""Between threads of Python: how long a batch that is done waits while requests are read."""
OBJECTS = 20_000
"""Made and not freed until Python looks for cycles: more than all requests have at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Where a service listens.

    Attributes:
        host: name or address; others than loopback ask for keys or for clients' certificates.
        port: 0 takes a free one.
        certificate, private_key: files in PEM for HTTPS.
        client_ca: certificates in PEM; clients must show one that these have signed (mTLS).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None

    def check(self, *, keys: bool) -> None:
        """Refuse what would be open to anybody.

        Args:
            keys: whether every request needs an API key.

        Raises:
            InputError: it would, or files that do not go together.
        """
        if self.client_ca is not None and self.certificate is None:
            raise bad_value(
                "client_ca", str(self.client_ca), "needs `certificate` and `private_key` too"
            )
        if self.private_key is not None and self.certificate is None:
            raise bad_value("private_key", str(self.private_key), "needs `certificate` too")
        if not (keys or self.client_ca is not None or is_loopback(self.host)):
            raise bad_value(
                "host",
                self.host,
                "others reach this address; pass `keys=FILE`, or `client_ca=FILE` for mTLS",
            )

    @property
    def url(self) -> str:
        """Of the service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"


def serve_models(
    files: Mapping[str, Path],
    settings: ModelSettings,
    address: Address,
    *,
    keys: Path | None = None,
    gallery: Path | None = None,
    drain_s: float = 30.0,
    drain_delay_s: float = 0.0,
    on_start: Callable[[str, Models], None] = lambda url, models: None,
) -> None:
    """Serve artefacts until a signal comes.

    Args:
        files: artefacts by the name that requests call them by.
        settings: how they are opened.
        address: where to listen.
        keys: file of the clients' keys, see :class:`sa_runtime.service.keys.Keys`.
        gallery: folder in which people are sought.
        drain_s: for the answers that are outstanding after the signal.
        drain_delay_s: see :class:`Server`.
        on_start: given the address with its port, and the models, when requests are taken.

    Raises:
        InputError: the address is taken or open to anybody, or a file is no artefact.
        RunnerError: a model cannot be opened, or its canary crops come out wrong.
        IncompleteError: requests were cut off at the end.
    """
    address.check(keys=keys is not None)
    settings.check()
    _tls(address)  # before models are opened
    holders = None if keys is None else Keys(keys)
    listening, address = bound(address)
    models = Models(dict(files), settings)
    _allow_files(settings.limits.max_connections + _OTHER_FILES)
    with listening:
        try:
            service = Service(models, keys=holders, gallery=gallery)
            service.open()
            Server(
                service,
                address,
                listening,
                drain_s=drain_s,
                drain_delay_s=drain_delay_s,
                on_start=lambda: on_start(address.url, models),
            ).serve_until_stopped()
        finally:
            models.close()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket, and the address with the port that it has.

    Raises:
        InputError: the address is taken, or not of this machine.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise bad_value(
            "host", address.host, f"no address of this machine ({_reason(exc)})"
        ) from exc
    family, kind, protocol, _, where = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as exc:
        listening.close()
        if exc.errno == errno.EADDRNOTAVAIL:
            raise bad_value("host", address.host, "no address of this machine") from exc
        raise _cannot_listen(address, exc) from exc
    return listening, dataclasses.replace(address, port=listening.getsockname()[1])


def _cannot_listen(address: Address, error: OSError) -> InputError:
    said = f"cannot listen on {address.host} ({_reason(error)}); choose another one"
    return bad_value("port", address.port, said)


def _allow_files(count: int) -> None:
    """Let this process open so many files, sockets among them; many shells allow 1024."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return
    kind, endless = resource.RLIMIT_NOFILE, resource.RLIM_INFINITY
    now, most = resource.getrlimit(kind)
    if now == endless or now >= count:
        return
    allowed = count if most == endless else min(count, most)
    resource.setrlimit(kind, (allowed, most))
    if allowed < count:
        _log.warning("%d files may be open: fewer connections than are allowed", allowed)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class Server(uvicorn.Server):
    """Uvicorn with the manners of this service.

    SIGTERM and Ctrl-C stop it: it says that it is not ready, goes on for ``drain_delay_s`` so that
    balancers hear of it, takes no further connections, answers what it has accepted, and ends. A
    second signal, or ``drain_s``, breaks that off.

    Args:
        service: what answers.
        address: where.
        listening: its socket, from :func:`bound`.
        drain_delay_s: between the signal and the last connection that is taken.
        drain_s: for the answers that are outstanding then.
        on_start: called when requests are taken.

    Raises:
        InputError: certificates that cannot be read, or a time without end.
    """

    def __init__(
        self,
        service: Service,
        address: Address,
        listening: socket.socket,
        *,
        drain_delay_s: float = 0.0,
        drain_s: float = 30.0,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        for name, seconds in (("drain_seconds", drain_s), ("drain_delay_seconds", drain_delay_s)):
            if not 0 <= seconds < LARGEST:
                raise bad_value(name, seconds, f"expected at least 0 and less than {LARGEST:g}")
        limits = service.limits
        config = uvicorn.Config(
            service.app,
            http=guarded(limits.read_timeout_s, service.app.early),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=limits.max_connections,
            limit_concurrency=limits.max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(drain_s)),
            **_tls(address),
        )
        super().__init__(config)
        self._service, self._address = service, address
        self._listening = listening
        self._drain_delay_s = drain_delay_s
        self._on_start = on_start
        self.cut_off = 0

    def serve_until_stopped(self) -> None:
        """Answer requests until a signal comes, or :attr:`should_exit` is set.

        Raises:
            IncompleteError: requests were cut off at the end.
        """
        # What clients send wrong is told to them and counted: it must not fill the disk.
        for name in ("uvicorn.error", "python_multipart"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with quiet_opencv(), _brisk():
            self.run(sockets=[self._listening])
        if self.cut_off:
            raise IncompleteError(
                f"{self.cut_off} requests were cut off "
                + (
                    "by the second signal"
                    if self.force_exit
                    else "when their time was over; allow more with `drain_seconds`"
                )
            )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so.

        Raises:
            InputError: another program listens there since its port was taken.
        """
        try:
            await super().startup(sockets)
        except OSError as exc:
            raise _cannot_listen(self._address, exc) from exc
        except SystemExit as exc:  # with a code that means something else here
            raise RuntimeError("the application did not start") from exc
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self.read_again)
        self._on_start()

    def read_again(self) -> None:
        """Take the certificate and the models as their files are now; SIGHUP asks for it."""
        address, context = self._address, self.config.ssl
        if context is not None and address.certificate is not None:
            try:
                check_pem(address.certificate, address.private_key)
                load_pair(context, address.certificate, address.private_key)
            except InputError as exc:
                _log.error("the certificate stays as it was: %s", exc)
            else:
                _log.info("%s: read again", address.certificate)
        self._service.reload_all()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that no more is wanted, then answer what there is."""
        self._service.draining = True
        if self._drain_delay_s:
            until = asyncio.get_running_loop().time() + self._drain_delay_s
            while asyncio.get_running_loop().time() < until and not self.force_exit:
                await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        finally:
            self.cut_off = len(self.server_state.tasks)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but a stop that loses nothing is a success: it is not raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop; at the second signal at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


@contextlib.contextmanager
def _brisk() -> Iterator[None]:
    """Short turns of the threads, and few searches for cycles of objects.

    By default a search comes every few requests, while their objects are still in use: these count
    as old, and after enough of them all old objects are searched, those of libraries too.
    """
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        sys.setswitchinterval(interval)


def _tls(address: Address) -> dict[str, Any]:
    if address.certificate is None:
        return {}
    check_pem(address.certificate, address.private_key, address.client_ca)
    found: dict[str, Any] = {
        "ssl_certfile": str(address.certificate),
        "ssl_keyfile": None if address.private_key is None else str(address.private_key),
    }
    if address.client_ca is not None:
        found |= {"ssl_ca_certs": str(address.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return found
