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
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis import RedisStore
from tests.stores.running import SESSION, Run, in_thread, on_loop

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a certificate of `elsewhere.example.org`, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
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
    return folder


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """Where somebody shows that certificate; nobody gets further than that."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate", folder / "key")
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
    assert PASSWORD not in str(caught.value)
    assert str(folder) not in str(caught.value)
