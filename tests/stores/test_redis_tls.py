"""TLS to Redis: whoever has to mend a certificate is told what is wrong with it."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from guardrails.core.operations import ReadAccount
from guardrails.errors import ConfigurationError, StoreUnavailable
from guardrails.stores.redis import RedisStore
from tests.stores.running import SESSION, Run, in_thread, on_loop

PASSWORD = "hunter2"

pytestmark = pytest.mark.filterwarnings(
    # `SSLSocket` leaves one open whose other side was gone before the handshake.
    "ignore:.*<ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a certificate of `elsewhere.example.org`, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    _certify(folder)
    return folder


def _certify(folder: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(folder / "key"), "-out", str(folder / "certificate")),
            *("-subj", "/CN=elsewhere.example.org"),
            *("-addext", "subjectAltName=DNS:elsewhere.example.org"),
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """Where somebody shows that certificate; nobody gets further than that."""
    with _greeting(folder) as port:
        yield port


@contextlib.contextmanager
def _greeting(folder: Path, *, asks: bool = False) -> Iterator[int]:
    """Shows the certificate to whoever connects, and asks for theirs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate", folder / "key")
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # The test is over.
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=greet)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("?ssl_ca_certs={folder}/certificate", "certificate is not valid for"),
        ("", "self-signed certificate"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(
    run: Run, folder: Path, port: int, options: str, said: str
) -> None:
    """And neither the password nor where the certificates are."""
    query = options.format(folder=folder)
    url = f"rediss://:{PASSWORD}@localhost:{port}/0{query}"
    with closing(RedisStore(url)) as store:
        with pytest.raises(StoreUnavailable) as caught:
            run(store, ReadAccount(account=SESSION))

    assert said in str(caught.value)
    assert str(caught.value).endswith("ssl_ca_certs in the URL.")
    assert PASSWORD not in str(caught.value)
    assert str(folder) not in str(caught.value)


def _said(run: Run, url: str) -> str:
    with closing(RedisStore(url)) as store:
        return _said_by(run, store)


def _said_by(run: Run, store: RedisStore) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        run(store, ReadAccount(account=SESSION))
    return str(caught.value)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_a_certificate_file_that_is_replaced_is_read_again(
    run: Run, folder: Path, port: int, tmp_path: Path
) -> None:
    """With the next connection, and no process is started anew."""
    _certify(tmp_path)  # By somebody else.
    trusted = tmp_path / "certificate"
    url = f"rediss://localhost:{port}/0?ssl_ca_certs={trusted}"
    with closing(RedisStore(url)) as store:
        before = _said_by(run, store)
        trusted.write_bytes((folder / "certificate").read_bytes())
        after = _said_by(run, store)

    assert "self-signed certificate" in before
    assert "certificate is not valid for" in after  # Trusted, but of another name.


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_a_server_that_wants_tls_is_named(run: Run, port: int) -> None:
    assert "use rediss://" in _said(run, f"redis://localhost:{port}/0")


@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_a_server_without_tls_is_named(run: Run) -> None:
    """It waits for a command, and takes the greeting for the start of one."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "use redis://" in _said(run, f"rediss://127.0.0.1:{port}/0")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_a_server_that_asks_for_a_certificate_is_named(run: Run, folder: Path) -> None:
    options = f"ssl_check_hostname=false&ssl_ca_certs={folder}/certificate"
    with _greeting(folder, asks=True) as port:
        said = _said(run, f"rediss://localhost:{port}/0?{options}")

    assert "give ssl_certfile and ssl_keyfile" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ssl_ca_certs={0}/none", "ssl_ca_certs '{0}/none' cannot be read: No such"),
        ("ssl_ca_path={0}/none", "ssl_ca_path '{0}/none' cannot be read: No such"),
        ("ssl_certfile={0}", "ssl_certfile '{0}' is a folder"),
        ("ssl_ca_certs={0}/key", "no certificate, or one without its key"),
        ("ssl_certfile={0}/certificate", "no certificate, or one without its key"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, options: str, said: str
) -> None:
    """At once: an agent that has to wait for a server would start without one."""
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(f"rediss://:{PASSWORD}@localhost/0?{options.format(folder)}")

    assert said.format(folder) in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_files_that_can_be_used_are(folder: Path) -> None:
    options = (
        "ssl_ca_certs={0}/certificate&ssl_ca_path={0}&ssl_certfile={0}/certificate"
    )
    options += "&ssl_keyfile={0}/key"
    RedisStore(f"rediss://localhost/0?{options.format(folder)}").close()
