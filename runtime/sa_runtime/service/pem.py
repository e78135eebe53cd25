"""Files of certificates and keys, read as whoever serves or asks will read them."""

from __future__ import annotations

import ssl
from pathlib import Path

from sa_runtime.errors import InputError, bad_value

_EXPECTED = "expected a certificate in PEM, with its private key in the same file or beside it"


def require_files(*paths: Path | str | None) -> None:
    """Refuse files that are not there.

    Raises:
        InputError: one is not.
    """
    for path in paths:
        if path is not None and not Path(path).is_file():
            raise InputError(f"{path}: no such file; expected a certificate or key in PEM")


def load_pair(
    context: ssl.SSLContext, certificate: Path | str, private_key: Path | str | None
) -> None:
    """Read a certificate and its key; one behind a password is not asked for at a terminal.

    Raises:
        InputError: they cannot be read, or do not belong together.
    """
    asked: list[bool] = []

    def password() -> bytes:
        asked.append(True)
        return b""

    named = private_key or certificate
    try:
        context.load_cert_chain(certificate, private_key, password)
    except (ssl.SSLError, OSError, ValueError) as exc:
        if asked:
            raise InputError(
                f"{named}: the private key is behind a password; write it without one, readable "
                "for the service alone: openssl pkey -in FILE -out NEW"
            ) from exc
        reason = getattr(exc, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise InputError(f"{named}: not the private key of {certificate}") from exc
        raise InputError(f"{named}: cannot be read ({reason or exc}); {_EXPECTED}") from exc


def load_ca(context: ssl.SSLContext, path: Path | str) -> None:
    """Trust certificates.

    Raises:
        InputError: none can be read.
    """
    try:
        context.load_verify_locations(cafile=str(path))
    except (ssl.SSLError, OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise InputError(
            f"{path}: cannot be read ({reason}); expected certificates in PEM"
        ) from exc


def check_pem(
    certificate: Path, private_key: Path | None = None, client_ca: Path | None = None
) -> None:
    """Read what a service will read when it listens.

    Raises:
        InputError: a file is not there or cannot be read.
    """
    require_files(certificate, private_key, client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, certificate, private_key)
    if client_ca is not None:
        load_ca(context, client_ca)


def trusted(
    url: str,
    ca: Path | str | None,
    certificate: Path | str | None,
    private_key: Path | str | None,
) -> ssl.SSLContext | bool:
    """Whom a client trusts, and what it shows; the default of httpx where nothing is given.

    Raises:
        InputError: a file that is not there or cannot be read.
    """
    if private_key is not None and certificate is None:
        raise bad_value("private_key", str(private_key), "needs `certificate` too")
    if not url.startswith("https://") or (ca is None and certificate is None):
        return True
    require_files(ca, certificate, private_key)
    if ca is None:
        import certifi

        ca = certifi.where()
    context = ssl.create_default_context()
    load_ca(context, ca)
    if certificate is not None:
        load_pair(context, certificate, private_key)
    return context
