"""`guardrails init`: rewires the clients of people, and loses nothing of theirs."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from guardrails.cli.mcp_hosts import jsonc
from guardrails.cli.mcp_hosts.clients import clients, rewired, servers_in, unwired
from guardrails.cli.template import TEMPLATE
from guardrails.config import load_configuration
from tests.cli.conftest import Run

CURSOR = """\
{
  // mine
  "mcpServers": {
    "files": { "command": "npx", "args": ["-y", "server-files", "/data"] },
    "bare": {"command": "my-server"}, /* "command": "no" */
    "remote": { "url": "https://example.org/mcp" },
    "odd": { "command": 7 },
  },
}
"""


@pytest.fixture
def home(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which Cursor is set up."""
    home = tmp_path / "home"
    (home / ".cursor").mkdir(parents=True)
    (home / ".cursor" / "mcp.json").write_text(CURSOR, encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def cursor(home: Path) -> Path:
    return home / ".cursor" / "mcp.json"


def commands(path: Path) -> dict[str, list[str]]:
    content = jsonc.parse(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return {
        name: [entry["command"], *entry.get("args", [])]
        for name, entry in content["mcpServers"].items()
        if "command" in entry
    }


def test_a_server_is_started_through_guardrails(
    command: Run, home: Path, folder: Path
) -> None:
    done = command("init")

    assert done.code == 0
    program, *arguments = commands(cursor(home))["files"]
    assert Path(program).name.startswith("guardrails")
    assert arguments == [
        *("wrap", "--config", str(folder / "guardrails.yaml"), "--server", "files"),
        *("--", "npx", "-y", "server-files", "/data"),
    ]
    assert commands(cursor(home))["bare"][-2:] == ["--", "my-server"]
    assert commands(cursor(home))["odd"] == [7]
    text = cursor(home).read_text(encoding="utf-8")
    assert "// mine" in text
    assert '/* "command": "no" */' in text
    assert "files is now guarded" in done.out
    assert "remote is reached by its URL" in done.out


def test_twice_is_once(command: Run, home: Path) -> None:
    command("init")
    once = cursor(home).read_bytes()

    done = command("init")

    assert cursor(home).read_bytes() == once
    assert "files is guarded" in done.out


def test_a_dry_run_changes_nothing(command: Run, home: Path, folder: Path) -> None:
    done = command("init", "--dry-run")

    assert "files would be guarded" in done.out
    assert cursor(home).read_text(encoding="utf-8") == CURSOR
    assert [*home.rglob("*.before-guardrails"), *folder.iterdir()] == []


def test_undo_leaves_every_byte_as_it_was(command: Run, home: Path) -> None:
    before = cursor(home).read_bytes()
    command("init")

    done = command("init", "--undo")

    assert done.code == 0
    assert cursor(home).read_bytes() == before
    assert not list(home.rglob("*.before-guardrails"))


def test_a_wrong_configuration_is_no_reason_not_to_undo(
    command: Run, home: Path, folder: Path
) -> None:
    """Behind it no server starts, so it is when people want to be rid of it."""
    command("init")
    (folder / "guardrails.yaml").write_text("tols: {}\n", encoding="utf-8")

    assert command("init").code == 2
    assert command("init", "--undo").code == 0

    assert cursor(home).read_text(encoding="utf-8") == CURSOR


def test_undo_also_takes_out_what_was_guarded_by_hand(command: Run, home: Path) -> None:
    """The backup has it as it was then, guarded."""
    by_hand = '"command": "guardrails", "args": ["wrap", "--", "mine"]'
    cursor(home).write_text(CURSOR.replace('"command": 7', by_hand), encoding="utf-8")
    command("init")

    done = command("init", "--undo")

    assert "odd is now unguarded" in done.out
    assert commands(cursor(home))["odd"] == ["mine"]
    assert commands(cursor(home))["files"] == ["npx", "-y", "server-files", "/data"]


def test_what_a_client_writes_meanwhile_is_not_lost(
    command: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claude Code writes the file of its servers whenever somebody talks to it."""
    theirs = CURSOR.replace("// mine", "// theirs")
    lexists = Path.exists

    def exists(self: Path, **options: bool) -> bool:
        """Lets the client write after the file was read, before the backup is made."""
        if self.name.endswith(".before-guardrails"):
            cursor(home).write_text(theirs, encoding="utf-8")
        return lexists(self, **options)

    monkeypatch.setattr(Path, "exists", exists)
    done = command("init")

    assert done.code == 1
    assert "run this again" in done.err
    assert cursor(home).read_text(encoding="utf-8") == theirs


def test_undo_keeps_what_was_changed_meanwhile(command: Run, home: Path) -> None:
    command("init")
    text = cursor(home).read_text(encoding="utf-8").replace("// mine", "// ours")
    cursor(home).write_text(text, encoding="utf-8")

    command("init", "--undo")

    text = cursor(home).read_text(encoding="utf-8")
    assert "// ours" in text
    assert commands(cursor(home))["files"] == ["npx", "-y", "server-files", "/data"]


def test_the_first_backup_is_kept(command: Run, home: Path) -> None:
    command("init")
    text = cursor(home).read_text(encoding="utf-8")
    cursor(home).write_text(
        text.replace('"odd": { "command": 7 }', '"new": { "command": "another" }'),
        encoding="utf-8",
    )

    command("init")

    backup = cursor(home).with_name("mcp.json.before-guardrails")
    assert backup.read_text(encoding="utf-8") == CURSOR
    assert commands(cursor(home))["new"][-1] == "another"


@pytest.mark.parametrize("comment", ["/" * 200, "// x " * 40, "/* x */" * 40])
def test_a_ruler_of_comments_takes_no_longer_to_read(comment: str) -> None:
    """What follows a comma is looked through; in one way, not in all there are."""
    text = f'{{"mcpServers": {{"a": {{"command": "x"}}, {comment}\n "b": {{}},}},}}'

    assert [server.name for server in servers_in(text, "mcpServers")] == ["a", "b"]


def test_a_file_that_is_no_json_is_left_alone(command: Run, home: Path) -> None:
    cursor(home).write_text('{"mcpServers": {', encoding="utf-8")

    done = command("init")

    assert done.code == 1
    assert "cannot be read, left alone" in done.err
    assert "line 1 column" in done.err
    assert cursor(home).read_text(encoding="utf-8") == '{"mcpServers": {'


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_guarded(
    command: Run, home: Path, folder: Path
) -> None:
    text = f'{{"mcpServers": {"[" * 100_000}{"]" * 100_000}}}'
    (folder / ".mcp.json").write_text(text, encoding="utf-8")

    done = command("init")

    assert done.code == 1
    assert "nested too deeply" in done.err
    assert "files is now guarded" in done.out


def test_a_link_stays_a_link_and_its_mode_stays(command: Run, home: Path) -> None:
    real = home / "dotfiles.json"
    cursor(home).rename(real)
    cursor(home).symlink_to(real)
    real.chmod(0o600)

    command("init")

    assert cursor(home).is_symlink()
    assert "wrap" in real.read_text(encoding="utf-8")
    assert real.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_stays_its_owners(command: Run, home: Path) -> None:
    """Written as root, it would be one that the owner's clients cannot read."""
    os.chown(cursor(home), 12_345, 54_321)
    cursor(home).chmod(0o600)

    command("init")

    for path in (cursor(home), cursor(home).with_name("mcp.json.before-guardrails")):
        assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 54_321)
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written_is_said(command: Run, home: Path) -> None:
    cursor(home).parent.chmod(0o500)
    try:
        done = command("init")
    finally:
        cursor(home).parent.chmod(0o700)

    assert done.code == 1
    assert "cannot be written" in done.err


def test_only_the_client_that_is_named(command: Run, home: Path) -> None:
    (home / ".codeium" / "windsurf").mkdir(parents=True)
    other = home / ".codeium" / "windsurf" / "mcp_config.json"
    other.write_text(CURSOR, encoding="utf-8")

    command("init", "--client", "windsurf")

    assert "wrap" not in cursor(home).read_text(encoding="utf-8")
    assert "wrap" in other.read_text(encoding="utf-8")


def test_an_unknown_client_is_said_with_those_that_are_known(
    command: Run, home: Path
) -> None:
    done = command("init", "--client", "emacs")

    assert done.code == 2
    assert "emacs" in done.err
    assert "Windsurf" in done.err


def test_without_clients_that_is_said(command: Run, home: Path) -> None:
    cursor(home).unlink()

    assert "No MCP client" in command("init").out


def test_a_configuration_that_is_there_is_used_and_not_overwritten(
    command: Run, home: Path, folder: Path
) -> None:
    (folder / "guardrails.yaml").write_text("version: 1\n", encoding="utf-8")

    command("init")

    assert (folder / "guardrails.yaml").read_text(encoding="utf-8") == "version: 1\n"
    assert str(folder / "guardrails.yaml") in commands(cursor(home))["files"]


def test_a_ledger_that_each_client_would_have_anew_is_refused(
    command: Run, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients start servers in folders of their own: a budget would be many."""
    path = folder / "guardrails.yaml"
    path.write_text("version: 1\nstore: sqlite:///ledger.db\n", encoding="utf-8")
    # The shell's own variables are not the clients'.
    monkeypatch.setenv("GUARDRAILS_STORE", f"sqlite:///{folder}/other.db")

    done = command("init")

    assert done.code == 2
    assert "guardrails.yaml:2: store: 'sqlite:///ledger.db'" in done.err
    assert cursor(home).read_text(encoding="utf-8") == CURSOR
    assert command("init", "--undo").code == 0
    text = f"version: 1\nstore: sqlite:///{folder}/ledger.db\n"
    path.write_text(text, encoding="utf-8")
    assert command("init").code == 0


@pytest.mark.parametrize("name", ["cat", "--config", "--", "half \ud800"])
def test_the_rewired_command_runs(
    home: Path, folder: Path, command: Run, name: str
) -> None:
    content = {"mcpServers": {name: {"command": "cat"}}}
    cursor(home).write_text(json.dumps(content), encoding="utf-8")
    assert command("init").code == 0

    program, *arguments = commands(cursor(home))[name]
    if not Path(program).exists():
        program, arguments = (
            sys.executable,
            ["-c", "from guardrails.cli import main; main()", *arguments],
        )
    done = subprocess.run(
        [program, *arguments],
        input=b'{"jsonrpc":"2.0","method":"ping","id":1}\n',
        capture_output=True,
        check=True,
        env={**os.environ, "GUARDRAILS_STORE": f"sqlite:///{folder}/g.db"},
        timeout=50,
    )

    assert done.stdout == b'{"jsonrpc":"2.0","method":"ping","id":1}\n'


# --- where clients keep their servers ----------------------------------------


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("darwin", "h/Library/Application Support/Claude/claude_desktop_config.json"),
        ("linux", "h/.config/Claude/claude_desktop_config.json"),
        ("win32", "h/AppData/Roaming/Claude/claude_desktop_config.json"),
    ],
)
def test_each_system_has_its_own_places(platform: str, expected: str) -> None:
    found = clients(home=Path("h"), cwd=Path("w"), environ={}, platform=platform)

    paths = {client.path.as_posix() for client in found}
    assert expected in paths
    assert {"h/.claude.json", "w/.mcp.json", "w/.vscode/mcp.json"} <= paths


def test_the_profiles_of_vs_code_have_servers_of_their_own(tmp_path: Path) -> None:
    for name in ("-4f1c", "work"):
        profile = tmp_path / ".config" / "Code" / "User" / "profiles" / name
        profile.mkdir(parents=True)
        (profile / "mcp.json").touch()

    found = clients(home=tmp_path, cwd=tmp_path, environ={}, platform="linux")

    profiles = [client for client in found if client.name == "VS Code (profile)"]
    assert [client.path.parent.name for client in profiles] == ["-4f1c", "work"]
    assert {client.key for client in profiles} == {"servers"}


def test_claude_code_may_be_told_where_its_files_are() -> None:
    environ = {"CLAUDE_CONFIG_DIR": "else"}

    found = clients(home=Path("h"), cwd=Path("w"), environ=environ, platform="linux")

    paths = {client.name: client.path.as_posix() for client in found}
    assert paths["Claude Code"] == "else/.claude.json"


@pytest.mark.parametrize("path", [".gemini/settings.json", ".copilot/mcp-config.json"])
def test_agents_of_the_command_line_are_guarded_too(
    command: Run, home: Path, path: str
) -> None:
    """As `gemini mcp add` and `copilot mcp add` have written it."""
    entry = {"type": "local", "command": "npx", "args": ["-y", "a"], "tools": ["*"]}
    servers = {"files": entry, "far": {"httpUrl": "https://far.example/mcp"}}
    file = home / path
    file.parent.mkdir(parents=True)
    before = json.dumps({"mcpServers": servers, "ui": {}}, indent=2)
    file.write_text(before, encoding="utf-8")

    done = command("init")

    started = json.loads(file.read_text(encoding="utf-8"))["mcpServers"]["files"]
    assert started["args"][-3:] == ["npx", "-y", "a"]
    assert "far is reached by its URL" in done.out
    command("init", "--undo")
    assert file.read_text(encoding="utf-8") == before


ENTRY = '"files": {\n  // mine\n  "command": "npx", "args": ["-y", "a"],\n}'

EDITORS = {
    ".config/zed/settings.json": '{"context_servers": {%s}, "theme": "One"}',
    ".config/amp/settings.json": '{"amp.mcpServers": {%s}, "amp.x": 1}',
    ".lmstudio/mcp.json": '{"mcpServers": {%s}}',
    ".junie/mcp/mcp.json": '{"mcpServers": {%s}}',
    ".cline/data/settings/cline_mcp_settings.json": '{"mcpServers": {%s}}',
    ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/"
    "cline_mcp_settings.json": '{"mcpServers": {%s}}',
    ".config/Code/User/globalStorage/rooveterinaryinc.roo-cline/settings/"
    "mcp_settings.json": '{"mcpServers": {%s}}',
}


@pytest.mark.skipif(sys.platform != "linux", reason="where they are on Linux")
@pytest.mark.parametrize(("path", "content"), EDITORS.items())
def test_editors_and_their_extensions_are_guarded_too(
    command: Run, home: Path, path: str, content: str
) -> None:
    file, before = home / path, content % ENTRY
    file.parent.mkdir(parents=True)
    file.write_text(before, encoding="utf-8")

    assert "files would be guarded" in command("init", "--dry-run").out
    assert file.read_text(encoding="utf-8") == before
    done = command("init")

    text = file.read_text(encoding="utf-8")
    assert "files is now guarded" in done.out
    assert '"--server", "files", "--", "npx", "-y", "a"],' in text
    assert "// mine" in text
    command("init", "--undo")
    assert file.read_text(encoding="utf-8") == before


def test_editors_are_found_on_each_system() -> None:
    def paths(platform: str) -> set[str]:
        home, cwd = Path("h"), Path("w")
        found = clients(home=home, cwd=cwd, environ={}, platform=platform)
        return {client.path.as_posix() for client in found}

    roaming = "h/AppData/Roaming"
    assert {f"{roaming}/Zed/settings.json"} < paths("win32")
    assert {f"{roaming}/Block/goose/config/config.yaml"} < paths("win32")
    for platform in ("darwin", "linux"):
        expected = {"h/.config/zed/settings.json", "h/.config/goose/config.yaml"}
        assert expected < paths(platform)
    project = {"w/.zed/settings.json", "w/.amp/settings.json", "w/.roo/mcp.json"}
    assert project < paths("linux")


CODEX = """\
# mine
[mcp_servers.files]
command = "npx"
args = ["-y", "a", 'C:\\data']

[mcp_servers."far.away"]
url = "https://far.example/mcp"
"""
CONTINUE = """\
mcpServers: # mine
  - name: files
    command: npx
    args: [-y, a, 'C:\\data']
  - {name: far.away, url: https://far.example/mcp}
"""
GOOSE = """\
extensions: # mine
  developer: {type: builtin, enabled: true}
  files:
    type: stdio
    cmd: npx
    args: [-y, a, 'C:\\data']
  far.away: {type: streamable_http, uri: https://far.example/mcp}
"""


def entry_of(path: Path) -> list[str]:
    """Returns the command of `files`, as its client would read it."""
    text = path.read_text(encoding="utf-8")
    whole = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    [servers] = whole.values()
    entry = servers[0] if isinstance(servers, list) else servers["files"]
    return [entry.get("command") or entry["cmd"], *entry["args"]]


@pytest.mark.skipif(sys.platform != "linux", reason="where they are on Linux")
@pytest.mark.parametrize(
    ("path", "before"),
    [
        (".codex/config.toml", CODEX),
        (".continue/config.yaml", CONTINUE),
        (".config/goose/config.yaml", GOOSE),
    ],
)
def test_of_what_is_no_json_it_is_said_what_to_write(
    command: Run, home: Path, folder: Path, path: str, before: str
) -> None:
    """Nothing that is here writes TOML or YAML and keeps its comments."""
    cursor(home).unlink()
    file = home / path
    file.parent.mkdir(parents=True)
    file.write_text(before, encoding="utf-8")
    own = ["npx", "-y", "a", "C:\\data"]
    assert entry_of(file) == own

    def follow(*options: str) -> str:
        """Does as the command says, and returns what that was."""
        done = command("init", *options)
        assert done.code == 0
        said = [one[6:] for one in done.out.splitlines() if one.startswith(" " * 6)]
        text = file.read_text(encoding="utf-8")
        for line in said:
            found = re.search(rf"(?m)^( *){line.split()[0].rstrip(':')}\b.*$", text)
            assert found is not None
            text = text[: found.end(1)] + line + text[found.end() :]
        file.write_text(text, encoding="utf-8")
        return done.out

    assert "files is not guarded" in follow()
    config = str(folder / "guardrails.yaml")
    words = entry_of(file)
    assert words[1:] == ["wrap", "--config", config, "--server", "files", "--", *own]
    assert "# mine" in file.read_text(encoding="utf-8")
    out = follow()
    assert "files is guarded" in out
    assert "far.away is reached by its URL" in out
    assert "developer" not in out
    follow("--undo")
    assert entry_of(file) == own
    assert not list(home.rglob("*.before-guardrails"))


@pytest.mark.parametrize("path", [".codex/config.toml", ".continue/config.yaml"])
def test_what_is_neither_toml_nor_yaml_is_left_alone(
    command: Run, home: Path, path: str
) -> None:
    file = home / path
    file.parent.mkdir(parents=True)
    file.write_text("{ [", encoding="utf-8")

    done = command("init")

    assert done.code == 1
    assert "cannot be read" in done.err
    assert commands(cursor(home))["files"][-4:] == [
        "npx",
        "-y",
        "server-files",
        "/data",
    ]


def test_the_projects_of_claude_code_count_too() -> None:
    text = json.dumps(
        {
            "mcpServers": {"a": {"command": "x"}},
            "projects": {"/p": {"mcpServers": {"b": {"command": "y"}}}},
        }
    )

    new = rewired(text, servers_in(text, "mcpServers"), ["guardrails", "wrap"])

    inner = json.loads(new)["projects"]["/p"]["mcpServers"]["b"]
    assert inner["args"] == ["wrap", "--server", "b", "--", "y"]


@pytest.mark.parametrize(
    "words",
    [
        "guardrails wrap npx -y server",
        "guardrails wrap --server files npx -y server",
        "guardrails wrap --server=files --config=g.yaml -- npx -y server",
        "bin/guardrails wrap --config g.yaml -- npx -y server",
        r"bin\guardrails.exe wrap -- npx -y server",
        "uvx --from guardrails-runtime guardrails wrap -- npx -y server",
    ],
)
def test_what_people_have_guarded_themselves_is_not_guarded_twice(words: str) -> None:
    """Two proxies in a row would count and charge each call twice."""
    program, *arguments = words.split()
    entry = {"command": program, "args": arguments}
    text = json.dumps({"mcpServers": {"files": entry}})

    assert rewired(text, servers_in(text, "mcpServers"), ["guardrails", "wrap"]) == text
    old = unwired(text, servers_in(text, "mcpServers"))
    left = json.loads(old)["mcpServers"]["files"]
    assert [left["command"], *left["args"]] == ["npx", "-y", "server"]


ARGUMENTS = """\
{"mcpServers": {
\t"a": {"command": "\\u006epx", "args": [
\t\t// which
\t\t"-y",   // without asking
\t\t"server\\/a", /* where */ "/data",
\t]},
\t"b": {"args": [ /* none */ ], "command": "b"},\r
\t"c": {"command": "first", "args": ["no"], "command": "c", "args": ["x",]},
}}
"""


def test_arguments_stay_as_they_are_written() -> None:
    """Each has its line, and its comment why it is there."""
    new = rewired(
        ARGUMENTS, servers_in(ARGUMENTS, "mcpServers"), ["guardrails", "wrap"]
    )
    old = unwired(new, servers_in(new, "mcpServers"))

    for comment in ("// which", "// without asking", "/* where */", "/* none */"):
        assert comment in new
    content = jsonc.parse(new)
    assert isinstance(content, dict)
    words = {name: entry["args"] for name, entry in content["mcpServers"].items()}
    assert words == {
        "a": ["wrap", "--server", "a", "--", "npx", "-y", "server/a", "/data"],
        "b": ["wrap", "--server", "b", "--", "b"],
        "c": ["wrap", "--server", "c", "--", "c", "x"],
    }
    assert old == ARGUMENTS


def test_a_large_file_is_read_once_for_all_its_servers() -> None:
    """Claude Code keeps megabytes of history there, and writes it all the time."""
    entry = {"command": "npx", "args": ["-y", "server"]}
    history = ["say {this}, [that] // and more" * 20] * 30
    project = {"history": history, "mcpServers": {"a": entry}}
    text = json.dumps({"projects": {f"/p{n}": project for n in range(60)}})
    servers = servers_in(text, "mcpServers")
    began = time.process_time()
    servers_in(text, "mcpServers")
    read_s = time.process_time() - began

    rewired(text, servers, ["guardrails", "wrap"])

    assert time.process_time() - began < 12 * read_s


# --- any file ----------------------------------------------------------------

NAMES = st.text(max_size=8)
SERVERS = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {"command": st.text(min_size=1, max_size=8)},
        optional={
            "args": st.lists(st.text(max_size=8), max_size=3),
            "env": st.dictionaries(NAMES, NAMES, max_size=2),
        },
    ),
    max_size=4,
)


@given(SERVERS, st.sampled_from([None, 2]), st.booleans())
def test_rewired_and_unwired_is_what_it_was(
    servers: dict[str, object], indent: int | None, is_ascii: bool
) -> None:
    content = {"other": [1, {"x": None}], "mcpServers": servers}
    text = json.dumps(content, indent=indent, ensure_ascii=is_ascii)

    new = rewired(text, servers_in(text, "mcpServers"), ["/bin/guardrails", "wrap"])
    old = unwired(new, servers_in(new, "mcpServers"))

    for entry in servers.values():
        assert isinstance(entry, dict)
        entry.setdefault("args", [])
    assert json.loads(old) == content
    assert all(
        json.loads(new)["mcpServers"][name]["args"][0] == "wrap" for name in servers
    )


# --- the configuration that it writes ----------------------------------------


def test_the_template_limits_nothing_before_somebody_says_so(folder: Path) -> None:
    (folder / "guardrails.yaml").write_text(TEMPLATE, encoding="utf-8")

    configuration = load_configuration(None, environ={}, cwd=folder, overrides={})

    assert configuration.policy.limits_nothing


def test_each_example_of_the_template_can_be_switched_on(folder: Path) -> None:
    text = TEMPLATE.replace("#: store: sqlite\n", "").replace("#: ", "")
    (folder / "guardrails.yaml").write_text(text, encoding="utf-8")

    configuration = load_configuration(None, environ={}, cwd=folder, overrides={})

    assert not configuration.policy.limits_nothing
    assert configuration.policy.budgets
    assert configuration.policy.tools
    assert configuration.policy.agents
