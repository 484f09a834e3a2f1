"""`guardrails session ID`: what a session did, on every store a command can open."""

import json
from pathlib import Path

import pytest

from guardrails import BudgetExceeded, Guard, LoopDetected, TokenUsage
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock
from tests.cli.conftest import Run
from tests.servers.processes import Server

ESCAPE = "\x1b[31m"
CONFIG = {
    "defaults": {
        "session": {"max_cost_usd": "0.10", "max_steps": 40},
        "on_unpriced": "allow",
    }
}


def work(guard: Guard, session_id: str = "s-long") -> None:
    """Nested agents, a run of one tool that ends as a loop, and odd calls."""
    with guard.session("router", customer_id="acme", session_id=session_id):
        with guard.call(model="gpt-4o", provider="openai") as call:
            call.settle(TokenUsage(input_tokens=1_000, output_tokens=10))
        with guard.session("support", session_id=session_id):
            with guard.call(model="my-model") as call:
                call.settle(TokenUsage(input_tokens=5))
            for number in range(5):
                with guard.call(
                    tool="geocode", server="maps", cost_usd="0.005", arguments=number
                ) as call:
                    call.settle(result=number)
        with (
            pytest.raises(ValueError, match="no such address"),
            guard.call(tool="geocode", server="maps", cost_usd="0.005") as call,
        ):
            raise ValueError("no such address")
        with pytest.raises(LoopDetected):
            for _ in range(4):
                with guard.call(tool="ping", cost_usd="0.001", arguments=1) as call:
                    call.settle(result=1)


def filled(url: str) -> str:
    guard = Guard(CONFIG, store=url, clock=FakeClock(now_ms=SystemClock().now_ms()))
    work(guard)
    guard.close()
    return url


@pytest.fixture
def config(folder: Path) -> Path:
    path = folder / "guardrails.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


class SessionScreen:
    """What is shown of a session that did much."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def test_shows_calls_agents_and_tools(
        self, command: Run, url: str, config: Path
    ) -> None:
        """Runs of the same call are folded, and what is odd about a call is marked."""
        done = command("session", "s-long", "--store", url)

        assert done.code == 0
        assert all(len(line) <= 80 for line in done.out.splitlines())
        text = " ".join(done.out.split())
        assert "s-long · router · acme · ▲ loop · 11 calls · $0.0356" in text
        assert "Used: cost $0.0356 of $0.10, steps 11 of 40" in text
        assert "ping repeated 3 times" in text
        assert "maps/geocode × 5 $0.0250 $0.0276" in text
        assert "maps/geocode $0.0050 $0.0326 failed" in text
        assert "my-model - $0.0026 unpriced" in text
        assert "ping × 3 $0.0030 $0.0356" in text
        assert "\nrouter " in done.out
        assert "\n  support " in done.out
        assert "1 call had no price" in text

    def test_says_the_same_as_json(self, command: Run, url: str, config: Path) -> None:
        done = command("session", "s-long", "--store", url, "--json", "--limit", "2")
        content = json.loads(done.out)

        assert content["schema_version"] == 1
        assert content["cost_usd"] == "0.0356"
        assert content["end"] == "loop_detected"
        assert content["limits"][0] == {
            "limit": "max_cost_usd",
            "used": "0.0356",
            "allowed": "0.1",
        }
        assert content["runs_total"] == 5
        assert [(run["name"], run["calls"]) for run in content["runs"]] == [
            ("maps/geocode", 1),
            ("ping", 3),
        ]
        assert [run["cumulative_usd"] for run in content["runs"]] == [
            "0.0326",
            "0.0356",
        ]
        by_agent = {tuple(row["agent_path"]): row["calls"] for row in content["agents"]}
        assert by_agent == {("router",): 5, ("router", "support"): 6}
        assert [row["name"] for row in content["names"]] == [
            "maps/geocode",
            "ping",
            "gpt-4o",
            "my-model",
        ]

    def test_an_unknown_session_is_a_failure_with_near_names(
        self, command: Run, url: str
    ) -> None:
        for asked in ("s-lnog", "s-lo"):
            done = command("session", asked, "--store", url)
            assert done.code == 1
            assert "Did you mean s-long?" in done.err
        done = command("session", f"{ESCAPE}nothing", "--store", url)

        assert done.code == 2
        assert "Did you mean" not in done.err
        assert ESCAPE not in done.err

    def test_says_at_which_limit_of_the_code_a_session_ended(
        self, command: Run, url: str, folder: Path
    ) -> None:
        """No configuration has it, and the operator does not have the code."""
        guard = Guard({}, store=url, max_cost_usd="0.05")
        with guard.session(session_id="s-own"), pytest.raises(BudgetExceeded):
            for _ in range(3):
                with guard.call(tool="t", cost_usd="0.02"):
                    pass
        guard.close()
        text = " ".join(command("session", "s-own", "--store", url).out.split())

        assert "UTC: $0.04 of $0.05 (max_cost_usd) used, the next call needs " in text
        assert "No limit is configured here" in text

    def test_says_who_ended_a_session(
        self, command: Run, url: str, folder: Path
    ) -> None:
        guard = Guard({}, store=url)
        guard.stop("s-long", by="ops", reason="customer asked")
        guard.close()
        text = " ".join(command("session", "s-long", "--store", url).out.split())

        assert "UTC: killed by ops: customer asked" in text


class TestOnSQLite(SessionScreen):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return filled(f"sqlite:///{tmp_path}/ledger.sqlite3")


class TestOnRedis(SessionScreen):
    @pytest.fixture
    def url(self, server: Server) -> str:
        return filled(server.unix_url)


def test_an_empty_ledger_knows_no_session(command: Run, folder: Path) -> None:
    done = command("session", "s", "--store", "sqlite:///none.sqlite3")

    assert done.code == 1
    assert "session s is not known" in done.err


def test_a_session_whose_calls_others_made_is_not_said_to_have_lost_them(
    command: Run, folder: Path
) -> None:
    """They are charged to it, and shown with the sessions inside of it."""
    url = f"sqlite:///{folder}/ledger.sqlite3"
    guard = Guard(store=url)
    with (
        guard.session("router", session_id="outer"),
        guard.session("worker", session_id="inner"),
        guard.call(tool="ping", cost_usd="0.01"),
    ):
        pass
    guard.close()

    said = command("session", "outer", "--store", url).out

    assert "any more" not in said
    assert "Sessions inside of it may have made some." in said


def test_names_do_no_harm_to_the_screen(
    command: Run, folder: Path, tmp_path: Path
) -> None:
    """Wide names and names that would reorder a line stay in their column."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    guard = Guard({}, store=url)
    with guard.session("日本語の長い名前のエージェント" * 3, session_id="s\u202eevil"):
        for tool in ("地図" * 30, "שלום", "\u202eboom"):
            with guard.call(tool=tool, cost_usd="0.01") as call:
                call.settle()
    guard.close()
    done = command("session", "s\u202eevil", "--store", url)

    assert done.code == 0
    assert "\u202e" not in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_an_id_that_cannot_be_one_is_refused(command: Run, folder: Path) -> None:
    done = command("session", "")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("guardrails: ID: ")


def test_a_file_is_not_called_memory(command: Run, folder: Path) -> None:
    done = command("session", "s", "--store", "sqlite:///:memory:")
    assert (done.code, done.out) == (2, "")
    assert "memory://" in done.err
    assert not list(folder.iterdir())
