"""Servers that nobody here wrote: the same bytes with and without the proxy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integrations.mcp_stdio import sessions
from tests.integrations.mcp_stdio.conftest import Run
from tests.integrations.mcp_stdio.hosts import (
    WRAP,
    call,
    clean_environment,
    scripted,
)

NODE = Path(sys.prefix) / "node"
"""Where make installs the servers that are npm packages."""

PYTHON_SERVER = Path(sys.executable).with_name("mcp-server-time")

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").exists(),
    reason=f"no Node.js, or no npm packages in {NODE}: `make test` installs them",
)

SEEDS = range(20)
"""Of one server; three of them make the 500 sessions of the soak test."""

SEEDS_SOAK = range(20, 187)


def servers(name: str, folder: Path) -> sessions.Servers:
    """Returns a server whose files are new."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    binary = NODE / "node_modules" / ".bin" / f"mcp-server-{name}"
    match name:
        case "everything":
            return sessions.everything(binary)
        case "filesystem":
            return sessions.filesystem(binary, folder)
        case "memory":
            return sessions.memory(binary, folder / "memory.json")
        case _:
            return sessions.clocks(PYTHON_SERVER)


@pytest.fixture
def differ(
    direct: Run, proxied: Run, guardrails: Run, tmp_path: Path
) -> Callable[[str, range], None]:
    """Plays the same sessions with and without the proxy, and compares."""

    called = 0

    def compare(name: str, seeds: range) -> None:
        heard: list[bytes] = []
        for start in (direct, proxied):
            server = servers(name, tmp_path / "files")
            host = start(*server.command, **server.environ)
            calls = sessions.play(host, server, seeds)
            assert host.end() == 0, host.err
            heard.append(host.out)
        assert heard[0] == heard[1]
        assert len(heard[0]) > 10_000
        nonlocal called
        called += calls
        assert guardrails("costs", "--by", "tool")["tool_calls"] == called

    return compare


NAMES = ("everything", "filesystem", "memory")


@needs_node
@pytest.mark.parametrize("name", NAMES)
def test_real_servers_and_their_hosts_notice_nothing(
    differ: Callable[[str, range], None], name: str
) -> None:
    differ(name, SEEDS)


@pytest.mark.skipif(
    not PYTHON_SERVER.exists(), reason="mcp-server-time needs mcp 2, which is not here"
)
def test_nor_does_one_that_is_written_in_python(
    differ: Callable[[str, range], None],
) -> None:
    differ("time", range(15))


@needs_node
@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_five_hundred_sessions_are_the_same_bytes(
    differ: Callable[[str, range], None], name: str
) -> None:
    for first in range(SEEDS_SOAK.start, SEEDS_SOAK.stop, 40):
        differ(name, range(first, min(first + 40, SEEDS_SOAK.stop)))


@needs_node
def test_a_client_of_the_official_sdk_hears_of_all_progress(tmp_path: Path) -> None:
    client = str(Path(__file__).with_name("progress_client.cjs"))

    done = subprocess.run(
        ["node", client, str(NODE), *WRAP, *scripted("serve")],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        timeout=50,
    )

    assert json.loads(done.stdout) == [50, 50, 50], done.stderr


@needs_node
@pytest.mark.soak
def test_npx_works_and_leaves_nothing(proxied: Run, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}", encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    host = proxied("npx", "-y", "@modelcontextprotocol/server-everything")

    assert host.ask(call(1, arguments={"message": "m"}))["id"] == 1

    host.process.terminate()
    assert host.wait() != 0
