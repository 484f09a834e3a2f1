"""Sentinels with a password of their own, and by TLS."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from guardrails.core.operations import ReadAccount
from guardrails.errors import StoreUnavailable
from guardrails.stores.redis import RedisStore
from tests.servers.processes import SERVICE, Sentinel, Server, binaries
from tests.servers.proxy import Fault, Proxy, always
from tests.servers.waiting import until
from tests.stores.running import SESSION, Run, in_thread, on_loop, runner

PASSWORD, ITS_PASSWORD = "hunter2", "swordfish"


@contextlib.contextmanager
def _watched(binary: Path, **options: str) -> Iterator[tuple[Server, Sentinel]]:
    """Starts a master, and a single Sentinel that watches it."""
    with contextlib.ExitStack() as stack:
        one = Server(binary, **options)
        if "tls_cert_file" in options:
            _only_tls(one)
        master = stack.enter_context(one)
        sentinel = Sentinel(binary, master.port)
        sentinel.options |= {
            **{name.replace("_", "-"): value for name, value in options.items()},
            f"sentinel monitor {SERVICE}": f"127.0.0.1 {master.port} 1",
            f"sentinel auth-pass {SERVICE}": PASSWORD,
        }
        if "tls_cert_file" in options:
            _only_tls(sentinel)
        yield master, stack.enter_context(sentinel)


def _only_tls(server: Server) -> None:
    server.options |= {"tls-port": server.options["port"], "port": "0"}


def _read(run: Run, url: str) -> object:
    with closing(RedisStore(url)) as store:
        return run(store, ReadAccount(account=SESSION))


@pytest.fixture(scope="module")
def guarded() -> Iterator[Sentinel]:
    """A Sentinel that asks for a password, and its master for another."""
    with _watched(next(iter(binaries().values()))) as (master, sentinel):
        master.ask("ACL", "SETUSER", "default", "resetpass", f">{PASSWORD}")
        sentinel.ask(
            *("ACL", "SETUSER", "asker", "on", f">{ITS_PASSWORD}", "+@all", "allkeys")
        )
        sentinel.ask("ACL", "SETUSER", "default", "resetpass", f">{ITS_PASSWORD}")
        yield sentinel


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
@pytest.mark.parametrize("user", ["", "&sentinel_username=asker"])
def test_sentinels_have_a_password_of_their_own(
    run: Run, guarded: Sentinel, user: str
) -> None:
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{guarded.port}/{SERVICE}/0"

    assert _read(run, f"{url}?sentinel_password={ITS_PASSWORD}{user}") is None


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("run", [in_thread, on_loop])
@pytest.mark.parametrize("query", ["", f"?sentinel_password={PASSWORD}"])
def test_who_may_not_ask_sentinels_is_told_how(
    run: Run, guarded: Sentinel, query: str
) -> None:
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{guarded.port}/{SERVICE}/0{query}"

    with pytest.raises(StoreUnavailable, match=r"add \?sentinel_password=") as error:
        _read(run, url)

    assert PASSWORD not in str(error.value)
    assert not error.value.may_return


def test_a_master_that_sentinels_do_not_know_is_said(guarded: Sentinel) -> None:
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{guarded.port}/other/0"

    with pytest.raises(StoreUnavailable, match="a master of this name"):
        _read(in_thread, f"{url}?sentinel_password={ITS_PASSWORD}")


@pytest.mark.parametrize("is_async", [False, True])
def test_sentinels_that_are_far_away_are_heard_in_the_end(
    guarded: Sentinel, is_async: bool
) -> None:
    """Three of them share what a call may take: each has less than it needs."""
    with Proxy(guarded.port, always(Fault.DELAY), delay_seconds=0.1) as proxy:
        hosts = ",".join([f"127.0.0.1:{proxy.port}"] * 3)
        url = f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}/0"
        with (
            closing(RedisStore(f"{url}?sentinel_password={ITS_PASSWORD}")) as store,
            runner(is_async=is_async) as run,
        ):

            def is_read() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    return run(store, ReadAccount(account=SESSION)) is None
                return False

            until(is_read, "an answer")


def test_sentinels_are_spoken_to_by_tls_where_the_server_is(tmp_path: Path) -> None:
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("No server here speaks TLS: install Debian's redis-server")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    options = {
        "tls_cert_file": str(tmp_path / "certificate"),
        "tls_key_file": str(tmp_path / "key"),
        "tls_ca_cert_file": str(tmp_path / "certificate"),
        "tls_auth_clients": "no",
        "tls_replication": "yes",
    }
    with _watched(binary, **options) as (_, sentinel):
        place = f"127.0.0.1:{sentinel.port}/{SERVICE}/0"
        certificate = f"ssl_ca_certs={tmp_path}/certificate"

        assert _read(in_thread, f"rediss+sentinel://{place}?{certificate}") is None
        with pytest.raises(StoreUnavailable, match=r"rediss\+sentinel://"):
            _read(in_thread, f"redis+sentinel://{place}")
