"""The shipped nginx file in front of a real service: TLS, and the client's own address."""

import re
import shutil
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from rollout.data.database.migrations import upgrade
from tests.api.test_serve import free_port, serving, until_ready

pytestmark = pytest.mark.enable_socket  # servers on this machine are asked
SHIPPED = Path(__file__).parents[2] / "config" / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
FREE_ATTEMPTS = 20  # failed sign-ins of one address before it has to wait


def write_certificate(folder):
    """Write a key and a certificate for this machine, signed by itself."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


@contextmanager
def proxying(folder, address):
    """Run nginx with the shipped file; only names, ports and folders are those of the test."""
    write_certificate(folder)
    port = free_port()
    text = SHIPPED.read_text(encoding="utf-8")
    for old, new in (
        (r"replica-[12]:8000", address.removeprefix("http://")),
        (r"listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (r"/etc/nginx/tls", str(folder)),
        (r"/tmp/nginx\.pid", str(folder / "nginx.pid")),  # noqa: S108 - the shipped name
        (r"/dev/std(out|err)", str(folder / "log")),
    ):
        text, count = re.subn(old, new, text)
        assert count, f"{old} is not in the shipped file"
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    words = [NGINX, "-p", folder, "-e", folder / "log", "-c", folder / "nginx.conf"]
    subprocess.run([*words, "-t"], check=True, capture_output=True)
    with subprocess.Popen([*words, "-g", "daemon off;"], stderr=subprocess.DEVNULL) as process:
        try:
            yield f"https://localhost:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed; tests/deploy parses its file")
    folder = tmp_path_factory.mktemp("nginx")
    url = f"sqlite:///{folder / 'rollout.db'}"
    upgrade(url)
    trusted = "import os; os.environ['ROLLOUT_TRUSTED_PROXIES'] = '127.0.0.1'; "
    with serving(url, before=trusted) as (address, _), proxying(folder, address) as outside:
        until_ready(address)
        with httpx2.Client(base_url=outside, verify=False) as client:
            for _ in range(100):
                try:
                    client.get("/health/live")
                    break
                except httpx2.TransportError:
                    continue
            yield client


def test_a_page_comes_over_tls_with_one_transport_header(site):
    answer = site.get("/console/sign-in", follow_redirects=True)
    assert answer.status_code == 200
    assert len(answer.headers.get_list("strict-transport-security")) == 1


def test_metrics_are_not_for_the_outside(site):
    assert site.get("/metrics").status_code == 404


def test_forged_addresses_are_one_client(site):
    """Each attempt names another user and pretends to come from another address."""
    statuses = [
        site.post(
            "/v1/session",
            json={"name": f"user-{number}", "password": "a guessed pass phrase"},
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        ).status_code
        for number in range(1, FREE_ATTEMPTS + 2)
    ]
    assert statuses == [401] * FREE_ATTEMPTS + [429]
