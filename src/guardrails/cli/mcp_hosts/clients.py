"""MCP clients: where each keeps the list of its servers, and how to rewire one.

Rewiring puts `guardrails wrap` in front of a server's command; unwiring takes it away.
Both change the command of an entry and the first of its arguments, and leave the rest
of the file alone, comments between the arguments too. What is no JSON is for `by_hand`.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import cast

from guardrails.cli.mcp_hosts.jsonc import (
    Edit,
    Span,
    edited,
    inserted,
    parse,
    removed,
    spans,
)

__all__ = [
    "URLS",
    "Client",
    "Server",
    "State",
    "clients",
    "own_command",
    "rewired",
    "server_of",
    "servers_in",
    "unwired",
    "wrapped",
]

_WITH_VALUE = ("--server", "--config")
"""Options of `guardrails wrap` that the next word belongs to."""

URLS = frozenset({"url", "serverUrl", "httpUrl", "uri"})
"""What holds the address of a server that is not started; Windsurf, Gemini CLI and
Goose have names of their own for it."""


class State(StrEnum):
    """What can be done about a server."""

    OPEN = "open"
    """It is started by a command, and nothing guards it."""
    GUARDED = "guarded"
    REMOTE = "remote"
    """It has no command to put anything in front of."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One list of servers of one client."""

    name: str
    path: Path
    key: str = "mcpServers"
    """Of the object that holds the servers by their names."""
    command: str = "command"
    """What the key of a server's program is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that a client starts."""

    name: str
    path: tuple[str, ...]
    """The keys to its entry in the file."""
    state: State
    command: tuple[str, ...] = ()


def clients(
    *, home: Path, cwd: Path, environ: Mapping[str, str], platform: str = sys.platform
) -> Sequence[Client]:
    """Returns the places at which clients keep their servers, whether there or not.

    Args:
        home: The user's home.
        cwd: The working directory, for lists that belong to a project.
        environ: The process's environment.
        platform: As of `sys.platform`.
    """
    if platform == "darwin":
        settings = home / "Library" / "Application Support"
    elif platform == "win32":
        settings = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        settings = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    desktop = settings / "Claude" / "claude_desktop_config.json"
    windsurf = home / ".codeium" / "windsurf" / "mcp_config.json"
    code = settings / "Code" / "User"
    own = Path(environ.get("CLAUDE_CONFIG_DIR") or home)
    return (
        Client(name="Claude Desktop", path=desktop),
        Client(name="Claude Code", path=own / ".claude.json"),
        Client(name="Claude Code (project)", path=cwd / ".mcp.json"),
        Client(name="Cursor", path=home / ".cursor" / "mcp.json"),
        Client(name="Cursor (project)", path=cwd / ".cursor" / "mcp.json"),
        Client(name="VS Code", path=code / "mcp.json", key="servers"),
        *(
            Client(name="VS Code (profile)", path=path, key="servers")
            for path in sorted(code.glob("profiles/*/mcp.json"))
        ),
        Client(
            name="VS Code (project)", path=cwd / ".vscode" / "mcp.json", key="servers"
        ),
        Client(name="Windsurf", path=windsurf),
        Client(name="Gemini CLI", path=home / ".gemini" / "settings.json"),
        Client(name="Gemini CLI (project)", path=cwd / ".gemini" / "settings.json"),
        Client(name="Copilot CLI", path=home / ".copilot" / "mcp-config.json"),
        *_of_editors(home, cwd, settings, platform),
        *_of_extensions(home, cwd, code),
        *_of_agents(home, cwd, settings, environ, platform),
    )


def _of_editors(
    home: Path, cwd: Path, settings: Path, platform: str
) -> Sequence[Client]:
    """Returns the lists of Zed, of JetBrains' Junie and of LM Studio."""
    zed = (home / ".config" if platform == "darwin" else settings) / "zed"
    zed = settings / "Zed" if platform == "win32" else zed
    key, junie = "context_servers", Path(".junie", "mcp", "mcp.json")
    return (
        Client(name="Zed", path=zed / "settings.json", key=key),
        Client(name="Zed (project)", path=cwd / ".zed" / "settings.json", key=key),
        Client(name="Junie", path=home / junie),
        Client(name="Junie (project)", path=cwd / junie),
        Client(name="LM Studio", path=home / ".lmstudio" / "mcp.json"),
        Client(name="LM Studio (cache)", path=home / ".cache/lm-studio/mcp.json"),
    )


def _of_extensions(home: Path, cwd: Path, code: Path) -> Sequence[Client]:
    """Returns the lists of Cline and Roo Code, also those in VS Code's own folder."""
    kept, name = code / "globalStorage", "cline_mcp_settings.json"
    cline = kept / "saoudrizwan.claude-dev" / "settings" / name
    roo = kept / "rooveterinaryinc.roo-cline" / "settings" / "mcp_settings.json"
    return (
        Client(name="Cline", path=home / ".cline" / "data" / "settings" / name),
        Client(name="Cline (CLI)", path=home / ".cline" / "mcp.json"),
        Client(name="Cline (VS Code)", path=cline),
        Client(name="Roo Code", path=roo),
        Client(name="Roo Code (project)", path=cwd / ".roo" / "mcp.json"),
    )


def _of_agents(
    home: Path, cwd: Path, settings: Path, environ: Mapping[str, str], platform: str
) -> Sequence[Client]:
    """Returns the lists of Amp, Codex, Continue and Goose, half of them no JSON."""
    amp, codex = "amp.mcpServers", Path(environ.get("CODEX_HOME") or home / ".codex")
    goose = (home / ".config" if platform == "darwin" else settings) / "goose"
    goose = settings / "Block" / "goose" / "config" if platform == "win32" else goose
    continued = cwd / ".continue" / "mcpServers"
    return (
        Client(name="Amp", path=home / ".config" / "amp" / "settings.json", key=amp),
        Client(name="Amp (project)", path=cwd / ".amp" / "settings.json", key=amp),
        Client(name="Codex", path=codex / "config.toml", key="mcp_servers"),
        Client(
            name="Codex (project)", path=cwd / ".codex/config.toml", key="mcp_servers"
        ),
        Client(name="Continue", path=home / ".continue" / "config.yaml"),
        *(
            Client(name="Continue (project)", path=path)
            for path in sorted(continued.glob("*"))
            if path.suffix in (".json", ".yaml", ".yml")
        ),
        Client(
            name="Goose", path=goose / "config.yaml", key="extensions", command="cmd"
        ),
    )


def servers_in(text: str, key: str) -> Sequence[Server]:
    """Returns the servers of a file, in its order.

    Lists of single projects in the same file, as Claude Code keeps them, count too.

    Raises:
        ValueError: If the text is no JSON object.
    """
    whole = parse(text)
    if not isinstance(whole, dict):
        raise ValueError("not a JSON object")
    content = cast("dict[str, object]", whole)
    lists = [((key,), content.get(key))]
    projects = content.get("projects")
    for name, project in _members(projects):
        lists += [(("projects", name, key), dict(_members(project)).get(key))]
    return [
        server_of(name, (*path, name), entry)
        for path, servers in lists
        for name, entry in _members(servers)
    ]


def rewired(text: str, servers: Sequence[Server], prefix: Sequence[str]) -> str:
    """Returns the text with `guardrails wrap` in front of each open server.

    Args:
        text: The file.
        servers: Those to rewire; others than open ones are left alone.
        prefix: `guardrails wrap` and its options, but for the server's name.
    """
    edits: list[Edit] = []
    for server, command, args in _found(text, servers, State.OPEN):
        words = [_written(word) for word in _before(server, prefix)]
        own = text[command.start : command.end]
        program, arguments = words[0], ", ".join([*words[1:], own])
        if args is None:
            edits.append(Edit(command, f'{program}, "args": [{arguments}]'))
        else:
            edits += [Edit(command, program), inserted(text, args, arguments)]
    return edited(text, edits)


def unwired(text: str, servers: Sequence[Server]) -> str:
    """Returns the text with the guarded servers as they were before."""
    edits: list[Edit] = []
    for server, command, args in _found(text, servers, State.GUARDED):
        assert args is not None
        removal, program = removed(text, args, _own_words(server.command))
        edits += [Edit(command, program), removal]
    return edited(text, edits)


def wrapped(server: Server, prefix: Sequence[str]) -> Sequence[str]:
    """Returns the command that runs an open server behind `guardrails wrap`.

    Args:
        server: The server.
        prefix: `guardrails wrap` and its options, but for the server's name.
    """
    return (*_before(server, prefix), *server.command)


def own_command(server: Server) -> Sequence[str]:
    """Returns the command of a guarded server as it was before."""
    return server.command[_own_words(server.command) :]


def _before(server: Server, prefix: Sequence[str]) -> Sequence[str]:
    name = server.name.encode("utf-8", "replace").decode()
    # Behind a space, a name that begins with a dash would be an option.
    named = (f"--server={name}",) if name[:1] == "-" else ("--server", name)
    return (*prefix, *named, "--")


def _found(
    text: str, servers: Sequence[Server], state: State
) -> Iterator[tuple[Server, Span, Span | None]]:
    """Yields the servers in a state, and where their command and arguments stand."""
    chosen = [server for server in servers if server.state is state]
    paths = [(*one.path, key) for one in chosen for key in ("command", "args")]
    found = spans(text, paths)
    for server in chosen:
        command, args = (*server.path, "command"), (*server.path, "args")
        yield server, found[command], found.get(args)


def _written(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Half a character cannot be written but as an escape.
    is_whole = not any("\ud800" <= character <= "\udfff" for character in text)
    return text if is_whole else json.dumps(value)


def server_of(name: str, path: tuple[str, ...], entry: object) -> Server:
    """Returns what an entry of a list says of its server."""
    members = dict(_members(entry))
    program, arguments = members.get("command"), members.get("args", [])
    if program is None and not URLS.isdisjoint(members):
        return Server(name=name, path=path, state=State.REMOTE)
    is_list = isinstance(arguments, list)
    words = [program, *(cast("list[object]", arguments) if is_list else [])]
    command = tuple(word for word in words if isinstance(word, str))
    if not is_list or not program or len(command) < len(words):
        return Server(name=name, path=path, state=State.UNREADABLE)
    state = State.GUARDED if _is_guarded(command) else State.OPEN
    return Server(name=name, path=path, state=state, command=command)


def _is_guarded(command: Sequence[str]) -> bool:
    return 0 < _own_words(command) < len(command)


def _own_words(command: Sequence[str]) -> int:
    """Returns where the server's own command begins behind ours; 0 without ours.

    People who have put ours there themselves may have left out its `--`, or run it by
    something like uvx.
    """
    at = next((at for at in range(len(command) - 1) if _is_ours(command, at)), None)
    if at is None:
        return 0
    at += 2
    while at < len(command) and command[at].startswith("--"):
        word = command[at]
        if word == "--":
            return at + 1
        at += 2 if word in _WITH_VALUE else 1  # A value may be a `--`.
    return at


def _is_ours(command: Sequence[str], at: int) -> bool:
    names = {PurePosixPath(command[at]).stem, PureWindowsPath(command[at]).stem}
    return "guardrails" in names and command[at + 1] == "wrap"


def _members(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from cast("dict[str, object]", value).items()
