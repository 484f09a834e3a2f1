"""A host of MCP servers that speaks in bytes, with or without the proxy between."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.waiting import until

WRAP = (sys.executable, "-c", "from guardrails.cli import main; main()", "wrap")
"""The proxy, whether or not its script is on the PATH."""

SCRIPTED = Path(__file__).with_name("scripted_server.py")

WAIT_SECONDS = 20.0
"""How long an answer may take on a busy machine."""

MARK = "HOST_MARK"
"""The variable by which processes are found that a host's command has started."""


def scripted(mode: str, *arguments: object) -> list[str]:
    """Returns the command line of the scripted server."""
    return [sys.executable, "-IS", str(SCRIPTED), mode, *map(str, arguments)]


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """Returns an environment that knows nothing but this folder."""
    kept = ("PATH", "LANG", "SYSTEMROOT", "COVERAGE_PROCESS_CONFIG")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "GUARDRAILS_STORE": f"sqlite:///{folder}/ledger.sqlite3",
        MARK: os.urandom(8).hex(),
        **more,
    }


def line(message: object) -> bytes:
    """Writes a message as most hosts do."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def request(key: object, method: str, **params: Any) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": key, "method": method}
    return line(message | ({"params": params} if params else {}))


def call(
    key: object,
    tool: str = "echo",
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    return request(key, "tools/call", name=tool, arguments=arguments or {}, **more)


def _hear_interrupts() -> None:
    """A shell starts what runs in its background with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Host:
    """Runs a command as hosts run MCP servers, and keeps all that it writes.

    Args:
        command: What to run.
        environ: Its environment.
        cwd: Its working directory.
        reads: Whether it reads from the start; otherwise once `read` is called.
        options: Of `subprocess.Popen`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        reads: bool = True,
        **options: Any,
    ) -> None:
        self.environ = environ
        self.mark = environ[MARK]
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=cwd,
            bufsize=0,
            **{"preexec_fn": _hear_interrupts, **options},
        )
        self._out, self._err = bytearray(), bytearray()
        self._has_read = threading.Condition()
        self.chunks: list[tuple[float, bytes]] = []
        """What was read from its output, and when."""
        self.keeps_chunks = False
        self._has_ended = False
        self._lines = 0
        """How much of the output `next` has given back."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, kept), name="host")
            for stream, kept in (
                (self.process.stdout, self._out),
                (self.process.stderr, self._err),
            )
        ]
        if reads:
            self.read()

    def read(self) -> None:
        """Begins to read what it writes."""
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, kept: bytearray) -> None:
        with contextlib.suppress(ValueError):  # It is closed.
            while chunk := os.read(stream.fileno(), 65_536):
                with self._has_read:
                    kept += chunk
                    if self.keeps_chunks and kept is self._out:
                        self.chunks.append((time.monotonic(), chunk))
                    self._has_read.notify_all()
        with self._has_read:
            self._has_ended = self._has_ended or kept is self._out
            self._has_read.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_input()
        for pid in reversed(marked(self.mark)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            if reader.ident is not None:
                reader.join(WAIT_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    @property
    def out(self) -> bytes:
        """All that it has written to its output."""
        return bytes(self._out)

    @property
    def err(self) -> str:
        """All that it has written to its error output."""
        return bytes(self._err).decode("utf-8", "replace")

    def unread_bytes(self) -> int:
        """Returns how much of its output waits to be read."""
        assert self.process.stdout is not None
        answer = fcntl.ioctl(self.process.stdout, termios.FIONREAD, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def send(self, data: bytes, *, chunk_bytes: int | None = None) -> None:
        """Writes to its input, all at once or in pieces."""
        assert self.process.stdin is not None
        fd = self.process.stdin.fileno()
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view[:chunk_bytes]) :]

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close_output(self) -> None:
        """Reads no more. Call it while nothing is being written."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def next(self, *, seconds: float = WAIT_SECONDS) -> Any:
        """Waits for the next line of its output, and returns its message."""

        def end() -> int:
            return self._out.find(b"\n", self._lines) + 1

        with self._has_read:  # Not by polling: hosts answer at once.
            self._has_read.wait_for(lambda: end() or self._has_ended, seconds)
            stop = end()
            assert stop, f"no answer. It has ended: {self._has_ended}. {self.err}"
            start, self._lines = self._lines, stop
            return json.loads(self._out[start:stop])

    def ask(self, data: bytes, *, seconds: float = WAIT_SECONDS) -> Any:
        """Writes a request and returns the next message."""
        self.send(data)
        return self.next(seconds=seconds)

    def wait(self, *, seconds: float = WAIT_SECONDS) -> int:
        """Waits for its end, and returns its exit code once all output is read."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(WAIT_SECONDS)
        return code

    def end(self, *, seconds: float = WAIT_SECONDS) -> int:
        """Closes its input, and waits for its end."""
        self.close_input()
        return self.wait(seconds=seconds)


def marked(mark: str) -> list[int]:
    """Returns the living processes that carry a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def children_of(pid: int) -> dict[int, str]:
    """Returns the states of a process's children, zombies among them."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found[int(folder.name)] = fields[0]
    return found


def proxies_of(host: Host) -> list[int]:
    """Returns the two processes of the proxy: the supervisor, and what it watches."""
    supervisor = host.process.pid
    until(lambda: children_of(supervisor), "the proxy")
    return [supervisor, *children_of(supervisor)]


def resident_bytes(pids: Sequence[int], *, is_peak: bool = False) -> int:
    """Returns the memory of processes, now or at its most."""
    wanted = "VmHWM:" if is_peak else "VmRSS:"
    rows = [
        row
        for pid in pids
        for row in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    ]
    return sum(int(row.split()[1]) * 1_024 for row in rows if row.startswith(wanted))
