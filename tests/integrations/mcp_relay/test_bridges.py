"""Bridges: a URL is reached through a program that is installed."""

import pytest

from guardrails_mcp.stdio.bridges import bridge, host_of
from guardrails_mcp.stdio.command import server_name

URL = "https://mcp.example.org:8443/mcp?tenant=a"


@pytest.mark.parametrize(
    ("installed", "program"), [({"mcp-proxy", "npx"}, "mcp-proxy"), ({"npx"}, "npx")]
)
def test_the_bridge_that_is_installed_is_used(
    installed: set[str], program: str
) -> None:
    command = bridge(URL, which=lambda name: name if name in installed else None)

    assert command[0] == program
    assert command[-1] == URL


def test_without_a_bridge_it_is_said_how_to_get_one() -> None:
    with pytest.raises(ValueError, match="pipx install mcp-proxy"):
        bridge(URL, which=lambda _: None)


@pytest.mark.parametrize(
    ("command", "host"),
    [
        ([URL], "mcp.example.org"),
        (["http://127.0.0.1:1/mcp"], "127.0.0.1"),
        (["npx", "-y", "mcp-remote", URL], None),
        (["server"], None),
    ],
)
def test_a_command_that_is_nothing_but_a_url_is_one(
    command: list[str], host: str | None
) -> None:
    assert host_of(command) == host


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("npx -y @modelcontextprotocol/server-memory@1.2", "server-memory"),
        ("python -m mcp_server_time", "mcp_server_time"),
        ("cmd /c npx -y server-files", "server-files"),
        (f"npx -y mcp-remote@latest {URL} --header X:y", "mcp.example.org"),
        (f"mcp-proxy --transport streamablehttp {URL}", "mcp.example.org"),
        ("mcp-proxy --port 80", "mcp-proxy"),
        ("docker run -i --rm -e TOKEN -v /a:/b reg.org:5/me/search:1.2 -v", "search"),
        ("podman run --pull=always -it mcp/fetch@sha256:abc serve", "fetch"),
        ("docker run -i", "docker"),
        ("docker compose up", "docker"),
        ("npx -y", "server"),
    ],
)
def test_a_server_is_called_as_itself_and_not_as_what_runs_it(
    words: str, name: str
) -> None:
    """Two servers behind one program would share their prices and limits."""
    assert server_name(words.split()) == name
