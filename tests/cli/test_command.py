"""The command line as a process: output, exit codes, and what it leaves behind."""

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from guardrails import Guard
from tests.cli.conftest import GUARDRAILS, Run

SINCE = re.compile(r"since \w{3} \d\d, \d\d:00 UTC")


def test_costs_shows_the_sessions(command: Run, ledger: str) -> None:
    """The whole of stdout at 80 columns, with nothing on stderr."""
    done = command("costs", "--hours", "24", "--store", ledger)

    assert done.code == 0
    assert done.err == ""
    assert (
        SINCE.sub("since …", done.out)
        == """\
Costs · last 24 h · 4 sessions · 9 steps · 1 stopped · since …
Session  Agent          Customer  Steps    LLM   Tools   Total  Share  End
s-3      support-agent  -             2  $0.03  $0.005  $0.035    39%  ✓
s-2      support-agent  globex        2  $0.02  $0.005  $0.025    28%  ✓
s-loop   support-agent  acme          3  $0     $0.015  $0.015    17%  ▲ loop
s-1      support-agent  acme          2  $0.01  $0.005  $0.015    17%  ✓
Total                                 9  $0.06  $0.030  $0.090
Waste $0.01 (11%): repeats $0.01.
"""
    )


@pytest.mark.parametrize(
    ("by", "line"),
    [
        ("customer", "(unattributed)      2  $0.03  $0.005  $0.035    39%"),
        ("customer_id", "globex              2  $0.02  $0.005  $0.025    28%"),
        ("agent", "support-agent      9  $0.06  $0.03  $0.09   100%"),
        ("tool", "maps/geocode      6    $0.005  $0.03   100%"),
        ("model", "gpt-4o      3     $0.02  $0.06   100%"),
        ("feature", "(unattributed)      9  $0.06  $0.03  $0.09   100%"),
        ("project", "default      9  $0.06  $0.03  $0.09   100%"),
    ],
)
def test_costs_by_a_dimension(command: Run, ledger: str, by: str, line: str) -> None:
    """Every dimension that is kept can be asked for, by its short name too."""
    done = command("costs", "--by", by, "--store", ledger)

    assert done.code == 0
    assert line in done.out


def test_costs_as_json(command: Run, ledger: str) -> None:
    """Programs read the whole of stdout."""
    done = command("costs", "--json", "--limit", "1", "--store", ledger)

    content = json.loads(done.out)
    assert content["cost_usd"] == "0.09"
    assert content["rows_total"] == 4
    assert [row["session_id"] for row in content["rows"]] == ["s-3"]


def test_costs_as_csv(command: Run, ledger: str) -> None:
    """One line per name, below a header."""
    done = command("costs", "--csv", "--by", "agent", "--store", ledger)

    (row,) = csv.DictReader(io.StringIO(done.out))
    assert row["agent"] == "support-agent"
    assert row["cost_usd"] == "0.09"


def test_the_configuration_names_the_store_and_the_project(
    command: Run, ledger: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest file counts, then the environment, then the options."""
    config = folder / "guardrails.yaml"
    config.write_text(f"store: {ledger}\nproject_id: other\n", encoding="utf-8")

    assert "0 sessions" in command("costs").out
    assert "4 sessions" in command("costs", "--project", "default").out
    monkeypatch.setenv("GUARDRAILS_PROJECT_ID", "default")
    assert "4 sessions" in command("costs").out
    monkeypatch.delenv("GUARDRAILS_PROJECT_ID")
    moved = config.rename(folder / "elsewhere.yaml")
    assert "0 sessions" in command("costs", "--config", str(moved)).out


def test_a_ledger_that_does_not_exist_is_not_created(
    command: Run, tmp_path: Path
) -> None:
    """Looking leaves no trace: nothing was recorded yet, and stderr says where."""
    path = tmp_path / "folder" / "none.sqlite3"

    done = command("costs", "--store", f"sqlite:///{path}")

    assert done.code == 0
    assert done.err == (
        f"guardrails: there is no ledger at {path} yet, so nothing was recorded.\n"
    )
    assert "Nothing was recorded." in done.out
    assert not path.parent.exists()


def test_without_a_ledger_json_is_still_json(command: Run) -> None:
    """Messages go to stderr, so a program gets an empty report."""
    done = command("costs", "--json")

    assert json.loads(done.out)["rows"] == []
    assert "there is no ledger" in done.err


def test_a_memory_store_is_said_to_hold_nothing(command: Run) -> None:
    """Another process cannot look into it."""
    done = command("costs", "--store", "memory://")

    assert done.code == 0
    assert "memory://" in done.err


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database at all, and long enough to be looked at")


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute(f"PRAGMA application_id = {0x6772646C}")
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (corrupt, "not a database"),
        (newer, "has schema 99"),
        (foreign, "belongs to another program"),
        (directory, "directory"),
    ],
)
def test_a_store_that_cannot_be_read_exits_with_4(
    command: Run, tmp_path: Path, make: object, message: str
) -> None:
    """One line says which file, what is wrong, and what to do; none is a traceback."""
    path = tmp_path / "broken.sqlite3"
    assert callable(make)
    make(path)

    done = command("costs", "--store", str(path))

    assert done.code == 4
    assert done.out == ""
    assert done.err.startswith("guardrails: store: sqlite file")
    assert message.lower() in done.err.lower()
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("costs", "--by", "color"), "--by: 'color' is not a dimension"),
        (("costs", "--json", "--csv"), "choose one"),
        (("costs", "--config", "missing.yaml"), "missing.yaml"),
        (("costs", "--store", "postgres://h/db"), "not a store of this version"),
        (("costs", "--project", ""), "project_id"),
        (("costs", "--hours", "0"), "--hours"),
        (("costs", "--limit", "many"), "--limit"),
        (("cost",), "No such command"),
        (("--nope",), "No such option"),
    ],
)
def test_a_wrong_use_exits_with_2(
    command: Run, arguments: tuple[str, ...], message: str
) -> None:
    """Options and configuration are the caller's to mend; stdout stays empty."""
    done = command(*arguments)

    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert "Traceback" not in done.err


def test_json_has_all_names_where_the_terminal_cannot_show_them(
    process: Run, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    guard = Guard({}, store=url)
    with guard.session("日本", session_id="s-😀"):
        with guard.call(tool="t"):
            pass
    guard.close()
    costs = ("costs", "--json", "--store", url)
    wide, narrow = [
        process(*costs, PYTHONIOENCODING=encoding) for encoding in ("utf-8", "latin-1")
    ]

    assert "日本" in wide.out
    assert narrow.out.isascii()
    assert json.loads(narrow.out)["rows"] == json.loads(wide.out)["rows"]


def test_a_wrong_configuration_exits_with_2(command: Run, folder: Path) -> None:
    """The message names the file, the line and the key."""
    config = folder / "guardrails.yaml"
    config.write_text("defaults:\n  session:\n    max_cost: 1\n", encoding="utf-8")

    done = command("costs")

    assert done.code == 2
    assert "guardrails.yaml:3" in done.err
    assert "max_cost_usd" in done.err


def test_exit_codes_reach_the_shell(process: Run, ledger: str, tmp_path: Path) -> None:
    """A script tells trouble with the store from a wrong use."""
    corrupt(tmp_path / "broken.db")

    assert process("costs", "--store", ledger).code == 0
    assert process("costs", "--by", "color").code == 2
    assert process("costs", "--store", str(tmp_path / "broken.db")).code == 4


def test_a_password_in_a_url_is_not_shown(command: Run) -> None:
    """Messages end up in logs."""
    done = command("costs", "--store", "redis://user:hunter2@127.0.0.1:1/0")

    assert done.code == 4
    assert "hunter2" not in done.err


def test_the_version(command: Run) -> None:
    """The distribution's name and version, for bug reports."""
    done = command("--version")

    assert re.fullmatch(r"guardrails-runtime \d+\.\d+\.\d+\n", done.out)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(command: Run, arguments: tuple[str, ...]) -> None:
    """A bare command shows what there is, and is no error."""
    done = command(*arguments)

    assert done.code == 0
    assert re.search(r"^  costs +Show what was spent", done.out, re.MULTILINE)
    assert re.search(r"^  demo +Run an agent", done.out, re.MULTILINE)
    assert max(map(len, done.out.splitlines())) <= 80


def test_help_loads_no_framework_and_no_tables() -> None:
    """The command starts fast: what one report needs is imported with it."""
    script = (
        "import sys\n"
        "from guardrails.cli.app import assembled\n"
        "assembled(['costs'])(['costs', '--help'], standalone_mode=False)\n"
        "heavy = {'rich', 'langchain', 'langchain_core', 'langgraph'}\n"
        "heavy |= {'genai_prices', 'guardrails.cli.init'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        text=True,
        timeout=50,
    )

    assert done.stderr == "[]\n"


def test_a_terminal_without_the_signs_gets_others(process: Run, ledger: str) -> None:
    """An ASCII terminal shows a question mark where it has no sign."""
    done = process("costs", "--store", ledger, PYTHONIOENCODING="ascii")

    assert done.code == 0
    assert "Costs ? last 24 h" in done.out


def test_a_reader_that_has_seen_enough_is_no_error(ledger: str) -> None:
    """`guardrails costs | head -1` prints a line and no traceback."""
    process = subprocess.Popen(
        [*GUARDRAILS, "costs", "--json", "--store", ledger],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    process.wait(timeout=50)
    process.stderr.close()

    assert "Traceback" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["costs", "export"])
def test_a_full_disk_is_said_without_a_traceback(command: str, ledger: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*GUARDRAILS, command, "--store", ledger],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=50,
            check=False,
        )

    errors = done.stderr.decode()
    assert done.returncode == 1
    assert errors.count("\n") == 1
    assert "No space left on device" in errors


def test_reading_changes_nothing(command: Run, ledger: str) -> None:
    """A report may run beside agents as often as one likes."""
    path = Path(ledger.removeprefix("sqlite:///"))
    before = path.read_bytes()

    command("costs", "--store", ledger)

    assert path.read_bytes() == before
