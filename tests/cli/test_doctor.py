"""`guardrails doctor` on real servers and files: each important line, exit codes."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails.stores import journal_folder, journal_store
from guardrails.stores.diagnosis import Status
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.health.diagnosis import diagnose
from guardrails.stores.resilient.journal import Journal
from guardrails.stores.sqlite import SQLiteStore
from guardrails.system.clock import SystemClock
from guardrails.testing.conformance import charging, reserve, settle
from tests.cli.conftest import Done, Run
from tests.servers.configured import ConfiguredServer, wait_until_followed
from tests.servers.processes import Cluster, Server, binaries, free_port

CLOCK = SystemClock()
SESSION = "gr:{default}:session/session_id=s"
LIMITED = "defaults:\n  session:\n    max_cost_usd: 1.00\n    max_steps: 40\n"


@pytest.fixture(autouse=True)
def limits(folder: Path) -> None:
    """Something is limited, so that no test is about that by accident."""
    (folder / "guardrails.yaml").write_text(LIMITED, encoding="utf-8")


@pytest.fixture
def plain(server: Server) -> Iterator[Server]:
    """A server whose settings a test may change."""
    before = {
        name: server.ask("CONFIG", "GET", name)[name.encode()]
        for name in ("maxmemory-policy", "maxmemory", "min-replicas-to-write")
    }
    yield server
    for name, value in before.items():
        server.ask("CONFIG", "SET", name, value)


def line(done: Done, name: str) -> str:
    """Returns the line of a check, with what belongs to it on one line."""
    found = re.search(
        rf"^(\w+ +{name} .*(?:\n {{21}}.*)*)", done.out, flags=re.MULTILINE
    )
    assert found, done.out
    return " ".join(found[1].replace("\\\n", "").split())


def held(store: RedisStore | SQLiteStore, hold_id: str = "h") -> None:
    """Leaves a call in flight."""
    store.execute(reserve(hold_id, charging()))
    store.close()


# --- Redis ------------------------------------------------------------------


def test_all_is_well_with_the_files_of_the_examples(
    command: Run, configured: ConfiguredServer
) -> None:
    """Each server runs with examples/redis, and the doctor has nothing to say."""
    done = command("doctor", "--store", configured.url_of("guardrails-doctor"))

    statuses = [text.split()[0] for text in done.out.splitlines() if text[0] != " "]
    assert statuses == ["ok"] * 13 + ["13"], done.out
    assert done.out.endswith("13 checks: 13 ok\n")
    assert (done.code, done.err) == (0, "")
    assert line(done, "limits") == "ok limits session max_cost_usd 1, max_steps 40"
    assert line(done, "durability") == (
        "ok durability append-only file, synced every second: a crash loses nothing "
        "unless the disk is slow, a power cut the last second or two"
    )
    assert line(done, "access") == (
        "ok access user guardrails-doctor, who may only look; user guardrails has all "
        "rights"
    )
    assert line(done, "callbacks") == (
        "ok callbacks langchain: a limit stops invoke and ainvoke; "
        "mcp: a limit stops call_tool"
    )


def test_least_rights_leave_two_things_unknown(
    command: Run, configured: ConfiguredServer
) -> None:
    """The reason is said, with what would grant it; unknown is no failure."""
    done = command("doctor", "--store", configured.url_of("guardrails"))

    assert done.code == 0
    assert line(done, "durability") == (
        "unknown durability append-only file is on, appendfsync is not known: this "
        f"user may not run CONFIG GET redis-cli -p {configured.port} ACL SETUSER "
        "guardrails '+config|get'"
    )
    assert line(done, "balance") == (
        "unknown balance 0 accounts and 0 holds add up, of project default and with "
        "a hold: this user may not run SCAN"
    )
    assert done.out.endswith("13 checks: 11 ok, 2 unknown\n")


def test_a_user_who_may_ask_nothing_learns_why(
    command: Run, configured: ConfiguredServer
) -> None:
    """INFO, CONFIG, TIME and ACL may all be forbidden."""
    configured.ask(
        *("ACL", "SETUSER", "blind", "reset", "on", ">blind", "~gr:*", "-@all", "+get")
    )

    done = command("doctor", "--store", configured.url_of("blind"))

    assert done.code == 1
    assert line(done, "access").startswith(
        "FAIL access user blind lacks +script|load +evalsha: "
    )
    for name, what in (
        ("version", "INFO"),
        ("eviction", "CONFIG GET"),
        ("durability", "CONFIG GET"),
        ("clock", "TIME"),
        ("balance", "SCRIPT LOAD"),
    ):
        assert line(done, name).startswith(
            f"unknown {name} this user may not run {what}"
        )


def test_a_server_that_evicts_fails(command: Run, plain: Server) -> None:
    """A dropped budget starts again at 0."""
    plain.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    done = command("doctor", "--store", plain.url)

    assert done.code == 1
    assert line(done, "eviction") == (
        "FAIL eviction maxmemory-policy allkeys-lru: a full server drops any key, and "
        "a budget that was dropped starts again at 0, silently "
        f"redis-cli -p {plain.port} CONFIG SET maxmemory-policy noeviction "
        f"redis-cli -p {plain.port} CONFIG REWRITE"
    )


def test_a_server_without_a_log_warns(command: Run, plain: Server) -> None:
    """What is lost is said; a warning is no failure."""
    done = command("doctor", "--store", plain.url)

    assert done.code == 0
    assert line(done, "durability").startswith(
        "warn durability no append-only file: a restart loses the whole ledger, so "
        f"budgets start again from there redis-cli -p {plain.port} CONFIG SET "
        "appendonly yes"
    )
    assert line(done, "access").startswith("warn access user default, who may do all")


def test_a_server_that_is_nearly_full_warns(command: Run, plain: Server) -> None:
    """Without eviction, a full server refuses."""
    plain.ask("CONFIG", "SET", "maxmemory", "1000000")

    done = command("doctor", "--store", plain.url)

    assert re.match(
        r"warn memory [\d.]+ MB of 1\.0 MB used: once it", line(done, "memory")
    )


def test_a_store_that_does_not_answer_exits_with_4(process: Run) -> None:
    """Without the password."""
    url = f"redis://user:hunter2@127.0.0.1:{free_port()}/0"

    done = process("doctor", "--store", url)

    assert done.code == 4
    assert "hunter2" not in done.out + done.err
    assert re.fullmatch(
        r"FAIL store redis 'redis://\*\*\*@127\.0\.0\.1:\d+/0': ConnectionError\. "
        r"Is it running, and reachable from here\?",
        line(done, "store"),
    )


def test_a_server_that_hangs_is_given_up_soon(command: Run) -> None:
    """Deadlines bound every attempt."""
    with Server(next(iter(binaries().values()))) as server:
        server.pause()
        begun_ms = CLOCK.monotonic_ms()
        done = command("doctor", "--store", server.url)
        took_ms = CLOCK.monotonic_ms() - begun_ms
        server.proceed()

    assert done.code == 4
    assert took_ms < 2_000


def test_a_wrong_password_exits_with_4(
    command: Run, configured: ConfiguredServer
) -> None:
    """As the store cannot be used."""
    url = configured.url_of("guardrails").replace(":guardrails@", ":wrong@")
    done = command("doctor", "--store", url)

    assert done.code == 4
    assert "User or password are wrong" in line(done, "store")


def damage(server: Server) -> None:
    """Writes another cost into a hold: 2 cents more."""
    text = server.ask("HGET", "gr:{default}:holds", "h")
    kind, cost, rest = text.split(b"\x1f", 2)
    more = b"%d" % (int(cost) + 20_000_000)
    server.ask("HSET", "gr:{default}:holds", "h", b"\x1f".join((kind, more, rest)))


def test_a_hold_that_was_changed_by_hand_fails(command: Run, server: Server) -> None:
    """Each account that it is held against is named, in money."""
    held(RedisStore(server.url))
    damage(server)

    done = command("doctor", "--store", server.url)

    assert done.code == 1
    assert line(done, "balance").startswith(
        f"FAIL balance {SESSION}: held is $0.01, its open holds add up to $0.03. "
        "gr:{default}:total/customer_id=acme: held is $0.01, its open holds add up "
        f"to $0.03 redis-cli -p {server.port} EVAL "
    )


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="needs redis-cli")
def test_the_printed_command_mends_the_balance(command: Run, server: Server) -> None:
    """It can be copied from the screen, continued lines and quotes included."""
    held(RedisStore(server.url))
    damage(server)
    shown = command("doctor", "--store", server.url).out
    lines = shown[shown.index("redis-cli -p", shown.index("balance")) :]
    script = lines[: lines.index("\nok ")]

    subprocess.run(["sh", "-e", "-c", script], check=True, capture_output=True)

    done = command("doctor", "--store", server.url)
    assert line(done, "balance") == "ok balance 2 accounts and 1 hold add up"
    store = RedisStore(server.url)
    store.execute(settle("h", charging()))
    store.close()
    assert "ok balance 2 accounts and 0 holds" in line(
        command("doctor", "--store", server.url), "balance"
    )


def test_money_that_is_held_by_nothing_fails(command: Run, server: Server) -> None:
    """A hold that vanished would block its amount for ever."""
    held(RedisStore(server.url))
    server.ask("HDEL", "gr:{default}:holds", "h")

    done = command("doctor", "--store", server.url)

    assert done.code == 1
    assert f"{SESSION}: held is $0.01, its open holds add up to $0" in line(
        done, "balance"
    )


def test_a_hold_without_its_account_fails_while_it_is_recent(
    command: Run, server: Server
) -> None:
    """An account is kept far longer than its calls last, unless it was evicted."""
    held(RedisStore(server.url))
    server.ask("DEL", SESSION)
    assert "add up" in line(command("doctor", "--store", server.url), "balance")
    text = server.ask("HGET", "gr:{default}:holds", "h")
    kind, cost, tokens, _, rest = text.split(b"\x1f", 4)
    soon = b"%d" % (CLOCK.now_ms() + 60_000)
    recent = b"\x1f".join((kind, cost, tokens, soon, rest))
    server.ask("HSET", "gr:{default}:holds", "h", recent)

    done = command("doctor", "--store", server.url)

    assert done.code == 1
    assert line(done, "balance") == (
        f"FAIL balance {SESSION}: it has holds and is gone: evicted, deleted or lost"
    )


def test_what_is_no_hold_fails(command: Run, server: Server) -> None:
    """Somebody else writes to our keys."""
    held(RedisStore(server.url))
    server.ask("HSET", "gr:{default}:lost", "x", "nonsense")

    done = command("doctor", "--store", server.url)

    assert done.code == 1
    assert line(done, "balance").startswith(
        "FAIL balance gr:{default}:lost holds something that is not of the ledger"
    )


def test_calls_in_the_meantime_are_no_finding(server: Server) -> None:
    """What is read one after the other never matches; what is read at once does."""
    is_over = threading.Event()

    def work(worker: int) -> None:
        store = RedisStore(server.unix_url)
        number = 0
        while not is_over.is_set():
            hold_id = f"{worker}-{number}"
            to = charging(session=f"s{number % 7}")
            store.execute(reserve(hold_id, to))
            if number % 5:
                store.execute(settle(hold_id, to))
            number += 1
        store.close()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    store = RedisStore(server.unix_url)
    try:
        found = [
            check
            for _ in range(20)
            for check in diagnose(store, project_id="default", clock=CLOCK)
            if check.name == "balance"
        ]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        store.close()

    assert [check.status for check in found] == [Status.OK] * 20, found


def test_a_replica_fails_and_its_master_warns(command: Run) -> None:
    """Writes belong on the master, and a master that is cut off should stop."""
    binary = next(iter(binaries().values()))
    with (
        Server(binary, repl_diskless_sync_delay="0") as master,
        Server(binary) as replica,
    ):
        replica.ask("REPLICAOF", "127.0.0.1", master.port)
        wait_until_followed(master)
        of_master = command("doctor", "--store", master.url)
        of_replica = command("doctor", "--store", replica.url)

    assert line(of_master, "replicas").startswith(
        "warn replicas 1 replica, min-replicas-to-write 0: a master that is cut off "
        f"goes on booking, and a failover loses that redis-cli -p {master.port} CONFIG "
        "SET min-replicas-to-write 1"
    )
    assert of_replica.code == 1
    assert line(of_replica, "role") == (
        "FAIL role a replica, which refuses to write: name its master, or its "
        f"Sentinels export GUARDRAILS_STORE=redis://127.0.0.1:{master.port}/0"
    )


def test_every_node_of_a_cluster_is_looked_at(command: Run, cluster: Cluster) -> None:
    """The one with the problem is named, in the line and in the command."""
    bad = cluster.nodes[1]
    bad.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    held(RedisStore(cluster.url))
    done = command("doctor", "--store", cluster.url)
    bad.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert done.code == 1
    assert line(done, "cluster") == (
        "ok cluster 16,384 of 16,384 slots are served by 3 masters"
    )
    assert line(done, "eviction").startswith(
        f"FAIL eviction 127.0.0.1:{bad.port}: maxmemory-policy allkeys-lru"
    )
    assert f"redis-cli -p {bad.port} CONFIG SET maxmemory-policy" in done.out
    assert line(done, "balance") == "ok balance 2 accounts and 1 hold add up"


def test_a_node_of_a_cluster_is_no_server_of_its_own(
    command: Run, cluster: Cluster
) -> None:
    """Most projects would be somewhere else."""
    nodes = [command("doctor", "--store", node.url) for node in cluster.nodes]

    # The nodes that do not hold the slot of the first question refer to another.
    assert {done.code for done in nodes} <= {1, 4}
    assert any("a node of a cluster" in done.out for done in nodes)


# --- SQLite -----------------------------------------------------------------


def ledger_of(folder: Path) -> SQLiteStore:
    store = SQLiteStore(folder / "ledger.sqlite3")
    held(store)
    return store


def test_a_sound_file_is_all_well(command: Run, tmp_path: Path) -> None:
    """It says what was proved."""
    path = ledger_of(tmp_path).path

    done = command("doctor", "--store", str(path))

    assert (done.code, done.err) == (0, "")
    assert line(done, "store") == f"ok store {path} is private and writable"
    assert line(done, "integrity") == "ok integrity the file is sound"
    assert line(done, "balance") == "ok balance 2 accounts and 1 hold add up"
    assert " 7 ok" in done.out.splitlines()[-1] or " 8 ok" in done.out.splitlines()[-1]


def test_a_file_without_a_journal_warns(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is needed only if the file is locked, and then the process is killed."""
    (tmp_path / "file").write_text("is no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))

    done = command("doctor", "--store", str(ledger_of(tmp_path).path))

    assert done.code == 0
    assert line(done, "journal").startswith(
        f"warn journal {tmp_path}/file/guardrails/journal cannot be made: "
    )
    assert "while the file is locked ends with its process" in line(done, "journal")


def test_a_file_that_is_not_there_is_not_made(command: Run, tmp_path: Path) -> None:
    """Looking leaves no trace."""
    path = tmp_path / "new" / "ledger.sqlite3"

    done = command("doctor", "--store", str(path))

    assert done.code == 0
    assert line(done, "store") == (
        f"ok store {path}: no ledger yet, the first guard makes it"
    )
    assert not path.parent.exists()


def test_a_damaged_file_fails(command: Run, tmp_path: Path) -> None:
    """Pages that were overwritten are found, and how to save the rest is said."""
    path = ledger_of(tmp_path).path
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    path.write_bytes(content)

    done = command("doctor", "--store", str(path))

    assert done.code == 1
    assert line(done, "integrity").startswith("FAIL integrity the file is damaged (")
    assert f'sqlite3 {path} ".recover"' in line(done, "integrity")


def test_something_else_than_a_ledger_exits_with_4(
    command: Run, tmp_path: Path
) -> None:
    """As for every other command."""
    path = tmp_path / "broken.db"
    path.write_bytes(b"this is no database at all, and long enough to be looked at")

    done = command("doctor", "--store", str(path))

    assert done.code == 4
    assert line(done, "store").startswith(f"FAIL store sqlite file '{path}': ")


def test_a_file_that_others_can_read_warns(command: Run, tmp_path: Path) -> None:
    """Names of customers are in it."""
    path = ledger_of(tmp_path).path
    path.chmod(0o644)

    done = command("doctor", "--store", str(path))

    assert done.code == 0
    assert line(done, "store") == (
        f"warn store {path} has mode 0644: other users can read or change it "
        f"chmod 600 {path}"
    )


def test_a_file_out_of_balance_fails_and_is_mended(
    command: Run, tmp_path: Path
) -> None:
    """The command that is printed adds what is missing."""
    store = ledger_of(tmp_path)
    with store.reading() as connection:
        connection.execute("UPDATE holds SET cost_nano_usd = 30000000, tokens = 5")
    store.close()

    done = command("doctor", "--store", str(store.path), "--json")

    assert done.code == 1
    checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
    assert checks["balance"]["status"] == "fail"
    assert checks["balance"]["text"].startswith(
        "default/session/session_id=s: held is $0.01, its open holds add up to $0.03; "
        "held is "
    )
    with store.reading() as connection:
        for text in checks["balance"]["commands"]:
            connection.execute(text.split('"')[1])
    store.close()
    assert command("doctor", "--store", str(store.path)).code == 0


# --- the rest ---------------------------------------------------------------


def test_nothing_limited_warns(command: Run, folder: Path) -> None:
    """A guard without limits only records."""
    (folder / "guardrails.yaml").unlink()

    done = command("doctor", "--store", "memory://")

    assert done.code == 0
    assert done.out == (
        "warn     limits      nothing is limited: everything is recorded, and loops "
        "only\n"
        "                     warn\n"
        "                     export GUARDRAILS_MAX_COST_USD=1.00\n"
        "warn     store       memory:// ends with the process that uses it: nothing "
        "to\n"
        "                     look at\n"
        "ok       callbacks   langchain: a limit stops invoke and ainvoke; "
        "mcp: a limit\n"
        "                     stops call_tool\n"
        "3 checks: 1 ok, 2 warnings\n"
    )


def test_observing_warns(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that stop nothing are easily forgotten."""
    monkeypatch.setenv("GUARDRAILS_MODE", "observe")

    done = command("doctor", "--store", "memory://")

    assert line(done, "limits") == (
        "warn limits mode observe records and stops nothing, whatever is limited "
        "export GUARDRAILS_MODE=enforce"
    )


def test_the_self_test_leaves_no_trace(
    command: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the log, nor of the environment's session."""
    monkeypatch.setenv("GUARDRAILS_SESSION_ID", "mine")
    monkeypatch.setenv("GUARDRAILS_MODE", "off")

    done = command("doctor", "--store", "memory://")

    assert "ok callbacks" in line(done, "callbacks")
    assert caplog.text == ""


def test_a_journal_that_cannot_be_kept_fails(
    command: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens while the store is away has nowhere to go."""
    data = tmp_path / "data"
    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    journal = data / "guardrails" / "journal"
    journal.mkdir(parents=True, mode=0o700)
    assert line(command("doctor", "--store", server.url), "journal").startswith(
        f"ok journal {journal} is private and writable; "
    )
    journal.chmod(0o755)
    assert line(command("doctor", "--store", server.url), "journal") == (
        f"warn journal {journal} has mode 0755: other users can look into it "
        f"chmod 700 {journal}"
    )
    journal.rmdir()
    journal.write_text("a file", encoding="utf-8")

    done = command("doctor", "--store", server.url)

    assert done.code == 1
    assert line(done, "journal").startswith(
        f"FAIL journal {journal} is not a writable directory, so what happens while "
        "the store is away would be lost"
    )


def test_what_waits_for_another_store_warns(
    command: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes the URL of a store changes who will book what it did not take."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    clock, ends = SystemClock(), [settle(f"{n}", charging()) for n in range(3)]
    for url in (server.url, "redis+cluster://there:6379"):
        journal = Journal(journal_folder(), store=journal_store(url), clock=clock)
        for op in ends:
            journal.keep(op)
        alive = command("doctor", "--store", server.url)
        journal.done(ends[0])
        journal.close()
    done = command("doctor", "--store", server.url)

    assert " left " not in alive.out
    assert line(done, "left").startswith(
        "warn left 2 operations wait in journals for another store than this"
    )
    assert done.code == 0


def test_json(command: Run, configured: ConfiguredServer) -> None:
    """Programs read the same, and no password."""
    done = command(
        "doctor", "--json", "--store", configured.url_of("guardrails-doctor")
    )

    content = json.loads(done.out)
    assert done.code == 0
    assert content["schema_version"] == 1
    assert content["status"] == "ok"
    assert content["store"] == f"redis://***@127.0.0.1:{configured.port}/0"
    assert content["checks"][0] == {
        "name": "limits",
        "status": "ok",
        "text": "session max_cost_usd 1, max_steps 40",
        "commands": [],
    }


def test_lines_fit_eighty_columns(command: Run, plain: Server) -> None:
    """Also commands, which a shell reads over several lines."""
    plain.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    held(RedisStore(plain.url))
    damage(plain)

    done = command("doctor", "--store", plain.url)

    lines = [
        line for line in done.out.splitlines() if str(journal_folder()) not in line
    ]
    assert max(map(len, lines)) <= 80, done.out  # A path is as long as it is.
    assert "\x1b[" not in done.out  # No terminal, no colour.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--store", "postgres://h/db"), "not a store of this version"),
        (("--config", "missing.yaml"), "missing.yaml"),
        (("--nope",), "No such option"),
    ],
)
def test_a_wrong_use_exits_with_2(
    command: Run, arguments: tuple[str, ...], message: str
) -> None:
    """The caller's to mend; stdout stays empty."""
    done = command("doctor", *arguments)

    assert (done.code, done.out) == (2, "")
    assert message in done.err
