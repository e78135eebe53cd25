"""A service behind certificates: it asks its clients for theirs, and they ask it for its own."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from sa_deploy import AsyncClient, Client
from sa_runtime.errors import InputError, SaDeployError
from sa_runtime.service.pem import check_pem
from sa_runtime.service.server import Address
from tests.runtime.service.serving import Running, serving

if TYPE_CHECKING:
    from tests.tiny_onnx import TinyModel

x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
pytest_plugins = ("tests.tiny_onnx",)
CROPS = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), dtype=np.uint8)


class Authority:
    """Signs certificates, as the operator of a site does."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key, self.certificate = self._signed(name, None)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._pem(self.certificate))

    def give(self, name: str) -> Path:
        """A certificate for this machine's address and its key, in one file."""
        from cryptography.hazmat.primitives import serialization

        key, certificate = self._signed(name, self)
        path = self.folder / f"{name}.pem"
        path.write_bytes(
            self._pem(certificate)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path

    def _pem(self, certificate: Any) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding

        found: bytes = certificate.public_bytes(Encoding.PEM)
        return found

    def _signed(self, name: str, by: Authority | None) -> tuple[Any, Any]:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer = key if by is None else by.key
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        known = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        of_signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by is None else by.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(known, critical=False)
            .add_extension(of_signer, critical=False)
        )
        if by is None:
            signs = dict.fromkeys(
                (
                    "digital_signature", "content_commitment", "key_encipherment",
                    "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
                ),
                False,
            )  # fmt: skip
            usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **signs)
            made = made.add_extension(usage, critical=True)
        return key, made.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "site")


@pytest.fixture(scope="module")
def running(tiny_model: TinyModel, site: Authority) -> Iterator[Running]:
    """One that takes only clients whose certificates the site signed."""
    at = Address(port=0, certificate=site.give("server"), client_ca=site.path)
    with serving(tiny_model.path, at=at) as found:
        assert found.url.startswith("https://")
        yield found


def test_a_client_with_a_certificate_gets_vectors(
    running: Running, tiny_model: TinyModel, site: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = site.give("camera")
    with Client(running.url, ca=site.path, certificate=mine) as client:
        found = client.embed(CROPS)
    np.testing.assert_allclose(found, tiny_model.embed(CROPS), atol=2e-6)
    monkeypatch.setenv("SA_DEPLOY_CA", str(site.path))
    monkeypatch.setenv("SA_DEPLOY_CERTIFICATE", str(mine))

    async def ask() -> Any:
        async with AsyncClient(running.url) as client:
            return await client.embed(CROPS)

    np.testing.assert_array_equal(asyncio.run(ask()), found)


def test_clients_without_one_or_with_a_strangers_are_refused(
    running: Running, site: Authority, tmp_path: Path
) -> None:
    answered = running.service.metrics.registry.get_sample_value
    before = answered("sa_deploy_requests_total", {"route": "none", "status": "200"})
    stranger = Authority(tmp_path, "stranger").give("intruder")
    for shown in (None, stranger):
        trust = ssl.create_default_context(cafile=str(site.path))
        if shown is not None:
            trust.load_cert_chain(shown)
        with httpx.Client(verify=trust) as http, pytest.raises(httpx.TransportError):
            http.get(f"{running.url}/v2")
        with (
            Client(running.url, ca=site.path, certificate=shown, timeout_s=1) as client,
            pytest.raises(SaDeployError, match=r"its clients for certificates.*`certificate`"),
        ):
            client.embed(CROPS)
    with pytest.raises(httpx.TransportError):
        httpx.get(running.url.replace("https", "http") + "/v2")
    after = answered("sa_deploy_requests_total", {"route": "none", "status": "200"})
    assert before == after


def test_a_service_that_is_not_trusted_is_told_at_once(
    running: Running, site: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    with (
        Client(running.url, ca=other.path, certificate=site.give("again")) as client,
        pytest.raises(InputError, match=r"its certificate is not trusted .*pass `ca`"),
    ):
        client.embed(CROPS)


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ca\.pem: no such file"):
        Client("https://127.0.0.1:1", ca=tmp_path / "ca.pem")
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(InputError, match=r"wrong\.pem: cannot be read"):
        Client("https://127.0.0.1:1", ca=wrong)
    with pytest.raises(InputError, match=r"wrong\.pem: cannot be read"):
        Client("https://127.0.0.1:1", certificate=wrong)


def test_a_service_names_what_it_cannot_read(site: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    server, other = site.give("named"), site.give("other")
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        site.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    check_pem(server, None, site.path)
    for given, said in (
        ((wrong,), "wrong.pem: cannot be read"),
        ((server, other), "other.pem: not the private key of"),
        ((server, locked), "locked.pem: the private key is behind a password"),
        ((server, None, wrong), "wrong.pem: cannot be read"),
        ((server, None, tmp_path / "absent.pem"), "absent.pem: no such file"),
    ):
        with pytest.raises(InputError, match=said):
            check_pem(*given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_ask_for_keys_or_certificates(host: str, tmp_path: Path) -> None:
    server = tmp_path / "server.pem"
    with pytest.raises(InputError, match="others reach this address"):
        Address(host=host).check(keys=False)
    with pytest.raises(InputError, match="others reach this address"):
        Address(host=host, certificate=server).check(keys=False)
    Address(host=host).check(keys=True)
    Address(host=host, certificate=server, client_ca=server).check(keys=False)


def test_a_renewed_certificate_is_shown_without_a_restart(
    tiny_model: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Authority(tmp_path, "site")
    shown = site.give("server")
    trust = ssl.create_default_context(cafile=str(site.path))

    def common_name(host: str, port: str) -> bytes:
        with (
            socket.create_connection((host, int(port)), 10) as link,
            trust.wrap_socket(link, server_hostname=host) as secure,
        ):
            found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
            name: Any = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
            return str(name).encode()

    at = Address(port=0, certificate=shown)
    with serving(tiny_model.path, at=at) as running:
        host, _, port = running.host.partition(":")
        loop = running.server.servers[0].get_loop()

        def read_again() -> None:
            done = threading.Event()
            loop.call_soon_threadsafe(running.server.read_again)
            loop.call_soon_threadsafe(done.set)
            assert done.wait(10)

        assert common_name(host, port) == b"server"
        with httpx.Client(base_url=running.url, verify=trust) as kept:
            assert kept.get("/v2").status_code == 200
            shown.write_bytes(site.give("renewed").read_bytes())
            read_again()
            assert common_name(host, port) == b"renewed"
            assert kept.get("/v2").status_code == 200
            shown.write_text("half of a certificate")
            read_again()
            assert "the certificate stays as it was" in caplog.text
            assert common_name(host, port) == b"renewed"
