"""Random sessions with real servers: the same for the same seed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.integrations.mcp_stdio.hosts import Host, line

STEPS_MAX = 12

Arguments = Callable[[Random], dict[str, Any]]

WORDS = (
    "a",
    "notes",
    "Zürich",
    "日本",
    "😀",
    "x" * 5_000,
    "line\nline",
    '"\\/',
    "",
    " ",
)


@dataclass(frozen=True, kw_only=True)
class Servers:
    """A real server, and calls of it that are answered alike each time."""

    command: list[str]
    tools: dict[str, Arguments]
    requests: tuple[tuple[str, dict[str, Any]], ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    announces: bool = False
    """Whether it says sooner or later after each start that its tools are new."""


def word(random: Random) -> str:
    return random.choice(WORDS)


def everything(binary: Path) -> Servers:
    resource = {"uri": "demo://resource/static/document/architecture.md"}
    return Servers(
        command=[str(binary)],
        announces=True,
        tools={
            "echo": lambda r: {"message": word(r)},
            "get-sum": lambda r: {"a": r.randint(-9, 9), "b": r.random()},
            "get-tiny-image": lambda r: {},
            "get-annotated-message": lambda r: {
                "messageType": r.choice(("error", "success", "debug", "?")),
                "includeImage": r.random() < 0.3,
            },
            "get-structured-content": lambda r: {
                "location": r.choice(("New York", "Chicago", "Paris"))
            },
            "get-resource-links": lambda r: {"count": r.randint(0, 12)},
            "trigger-long-running-operation": lambda r: {"duration": 0.01, "steps": 2},
        },
        requests=(
            ("resources/list", {}),
            ("resources/templates/list", {}),
            ("resources/read", resource),
            ("prompts/list", {}),
            ("prompts/get", {"name": "simple-prompt"}),
            ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Zürich"}}),
            ("prompts/get", {"name": "nobody"}),
            ("logging/setLevel", {"level": "error"}),
        ),
    )


def filesystem(binary: Path, folder: Path) -> Servers:
    def path(random: Random) -> str:
        inside = f"{folder}/{random.choice('abcd')}.txt"
        return "/etc/passwd" if random.random() < 0.1 else inside

    return Servers(
        command=[str(binary), str(folder)],
        tools={
            "write_file": lambda r: {"path": path(r), "content": word(r) * 3},
            "read_text_file": lambda r: {"path": path(r)},
            "read_multiple_files": lambda r: {"paths": [path(r), path(r)]},
            "edit_file": lambda r: {
                "path": path(r),
                "edits": [{"oldText": "notes", "newText": word(r)}],
                "dryRun": r.random() < 0.5,
            },
            "create_directory": lambda r: {"path": f"{folder}/{r.choice('ef')}"},
            "list_directory": lambda r: {"path": str(folder)},
            "directory_tree": lambda r: {"path": str(folder)},
            "search_files": lambda r: {"path": str(folder), "pattern": "*.txt"},
            "move_file": lambda r: {"source": path(r), "destination": path(r)},
            "list_allowed_directories": lambda r: {},
        },
    )


def memory(binary: Path, file: Path) -> Servers:
    def entity(random: Random) -> dict[str, Any]:
        name = random.choice("abcdef")
        return {"name": name, "entityType": "t", "observations": [word(random)]}

    return Servers(
        command=[str(binary)],
        environ={"MEMORY_FILE_PATH": str(file)},
        tools={
            "create_entities": lambda r: {"entities": [entity(r)]},
            "create_relations": lambda r: {
                "relations": [{"from": "a", "to": r.choice("bcd"), "relationType": "r"}]
            },
            "add_observations": lambda r: {
                "observations": [{"entityName": r.choice("abg"), "contents": [word(r)]}]
            },
            "delete_entities": lambda r: {"entityNames": [r.choice("abcdef")]},
            "read_graph": lambda r: {},
            "search_nodes": lambda r: {"query": word(r)[:20]},
            "open_nodes": lambda r: {"names": [r.choice("abc")]},
        },
        requests=(
            ("resources/list", {}),
            ("resources/read", {"uri": "memory://knowledge-graph"}),
        ),
    )


def clocks(binary: Path) -> Servers:
    zones = ("Europe/Berlin", "Asia/Tokyo", "America/Lima", "Nowhere/At_All")
    return Servers(
        command=[str(binary), "--local-timezone", "UTC"],
        tools={
            "convert_time": lambda r: {
                "source_timezone": r.choice(zones),
                "target_timezone": r.choice(zones),
                "time": r.choice(("12:00", "00:30", "25:61")),
            }
        },
    )


def messages(servers: Servers, random: Random, prefix: str) -> Iterator[dict[str, Any]]:
    """Yields what a host writes in one session."""
    start = {
        "protocolVersion": random.choice(("2025-11-25", "2025-06-18", "2024-11-05")),
        "capabilities": {},
        "clientInfo": {"name": "h", "version": "1"},
    }
    yield {"id": f"{prefix}-0", "method": "initialize", "params": start}
    yield {"method": "notifications/initialized"}
    for number in range(1, random.randint(3, STEPS_MAX)):
        yield {"id": f"{prefix}-{number}"} | _request(servers, random)


def _request(servers: Servers, random: Random) -> dict[str, Any]:
    chance = random.random()
    if chance < 0.15:
        others = (("ping", {}), ("tools/list", {}), ("no/method", {"x": 1}))
        method, params = random.choice((*others, *servers.requests))
    elif chance < 0.3 and servers.requests:
        method, params = random.choice(servers.requests)
    else:
        tool = random.choice([*servers.tools, "no-such-tool"])
        made = servers.tools.get(tool, lambda r: {"x": word(r)})(random)
        arguments = {} if random.random() < 0.05 else made
        method, params = "tools/call", {"name": tool, "arguments": arguments}
        if random.random() < 0.2:
            params["_meta"] = {"progressToken": random.randint(1, 99)}
    return {"method": method, "params": params}


def written(message: dict[str, Any], random: Random) -> bytes:
    """Writes a message in one of the ways that JSON allows."""
    keyed = {"jsonrpc": "2.0"} | message
    if random.random() < 0.5:
        keyed = message | {"jsonrpc": "2.0"}
    if random.random() < 0.5:
        return line(keyed)
    end = random.choice(("\n", "\r\n", " \n"))
    return (json.dumps(keyed, ensure_ascii=False) + end).encode()


def play(host: Host, servers: Servers, seeds: range) -> int:
    """Plays sessions; returns how many tool calls were made."""
    calls = 0
    for seed in seeds:
        random = Random(seed)
        for message in messages(servers, random, str(seed)):
            data = written(message, random)
            calls += message["method"] == "tools/call"
            size = random.choice((None, None, None, 997, 13))
            host.send(data, chunk_bytes=size if len(data) < 5_000 else None)
            while "id" in message and host.next().get("id") != message["id"]:
                pass  # Notifications come in between.
            if message["method"] == "notifications/initialized" and servers.announces:
                # When it does depends on when the next request comes.
                assert host.next()["method"] == "notifications/tools/list_changed"
    return calls
