"""`guardrails prices`: what was called, its price, and whether that is expected."""

import json
from pathlib import Path

import pytest

from guardrails import Guard, TokenUsage
from tests.cli.conftest import Run
from tests.servers.processes import Server

CONFIG = {
    "models": {"my-ft": {"input_per_1m_usd": 3, "output_per_1m_usd": 15}},
    "tools": {"maps/geocode": {"cost_per_call_usd": 0.005}},
    "defaults": {"on_unpriced": "allow"},
}
RIGHT = {
    "models": {
        "my-ft": {"input_per_1m_usd": 3, "output_per_1m_usd": 15},
        "openai/gpt-4o": {
            "input_per_1m_usd": 2.5,
            "output_per_1m_usd": 10,
            "cache_read_per_1m_usd": 1.25,
        },
        "nobody-knows": {"input_per_1m_usd": 1, "output_per_1m_usd": 1},
        "gpt-4o-mini": {"input_per_1m_usd": 0.15, "output_per_1m_usd": 0.6},
    },
    "tools": {"maps/*": {"cost_per_call_usd": 0.005}},
}
UNKNOWN = "nobody-knows: input_per_1m_usd is unknown, expected 1"


def filled(url: str) -> str:
    guard = Guard(CONFIG, store=url)
    with guard.session("support", session_id="s"):
        for model, provider in (
            ("gpt-4o", "openai"),
            ("my-ft", None),
            ("nobody-knows", None),
        ):
            for _ in range(2):
                with guard.call(model=model, provider=provider) as call:
                    call.settle(TokenUsage(input_tokens=1_000))
        with guard.call(model="routed", provider="gateway") as call:
            call.settle(TokenUsage(input_tokens=9), cost_usd="0.25")
        for tool, server in (("geocode", "maps"), ("free\u202e", None)):
            with guard.call(tool=tool, server=server) as call:
                call.settle()
    guard.close()
    return url


class PriceScreen:
    """The same on each store."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def config(self, folder: Path) -> None:
        (folder / "guardrails.yaml").write_text(json.dumps(CONFIG))

    def test_shows_rates_sources_and_what_has_no_price(
        self, command: Run, url: str
    ) -> None:
        done = command("prices", "--store", url)
        lines = [" ".join(line.split()) for line in done.out.splitlines()]

        assert done.code == 0
        assert all(len(line) <= 80 for line in done.out.splitlines())
        assert "\u202e" not in done.out
        assert lines[0] == "Prices · last 7 days · 9 calls"
        [gpt] = [line for line in lines if line.startswith("openai/gpt-4o")]
        assert gpt.startswith("openai/gpt-4o 2.50 10.00 1.25 - genai-prices")
        assert "my-ft 3.00 15.00 3.00 - yours 2 0" in lines
        assert "nobody-knows - - - - unknown 2 2" in lines
        assert "gateway/routed - - - - reported 1 0" in lines
        assert "maps/geocode - - - 0.005 yours 1 0" in lines
        assert "3 calls had no price" in done.out

    def test_says_the_same_as_json(self, command: Run, url: str) -> None:
        content = json.loads(command("prices", "--store", url, "--json").out)
        found = {row["name"]: row for row in content["prices"]}

        assert content["schema_version"] == 1
        assert found["gpt-4o"]["input_per_1m_usd"] == "2.5"
        assert found["gpt-4o"]["cost_usd"] == "0.005"
        assert found["maps/geocode"]["cost_per_call_usd"] == "0.005"
        assert found["nobody-knows"]["unpriced_calls"] == 2
        assert "input_per_1m_usd" not in found["nobody-knows"]
        assert found["routed"]["reported_calls"] == 1

    def test_names_each_price_that_is_not_expected(
        self, command: Run, url: str, folder: Path
    ) -> None:
        expected = folder / "expected.yaml"
        changed = json.loads(json.dumps(RIGHT))
        changed["models"]["openai/gpt-4o"]["output_per_1m_usd"] = 11
        changed["tools"]["maps/*"]["cost_per_call_usd"] = 0.01
        expected.write_text(json.dumps(changed))
        done = command("prices", "--store", url, "--check", "expected.yaml")

        assert done.code == 3
        assert done.err.splitlines() == [
            "guardrails: openai/gpt-4o: output_per_1m_usd is 10, expected 11",
            f"guardrails: {UNKNOWN}",
            f"guardrails: {UNKNOWN.replace('input', 'output')}",
            "guardrails: gateway/routed: is called, and no price is expected",
            "guardrails: maps/geocode: cost_per_call_usd is 0.005, expected 0.01",
        ]


class TestOnSQLite(PriceScreen):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return filled(f"sqlite:///{tmp_path}/ledger.sqlite3")


class TestOnRedis(PriceScreen):
    @pytest.fixture
    def url(self, server: Server) -> str:
        return filled(server.unix_url)


def test_expected_prices_pass(command: Run, folder: Path, ledger: str) -> None:
    """Also those of models that are not called, as long as they are right."""
    expected = folder / "expected.json"
    tools = {"maps/geocode": {"cost_per_call_usd": "0.005"}}
    models = {
        name: {"input_per_1m_usd": rate, "output_per_1m_usd": 4 * rate}
        for name, rate in (("gpt-4o", 2.5), ("gpt-4o-mini", 0.15))
    }
    expected.write_text(json.dumps({"models": models, "tools": tools}))
    done = command("prices", "--store", ledger, "--check", "expected.json")
    wrong = json.loads(json.dumps({"models": models, "tools": tools}))
    wrong["models"]["gpt-4o-mini"]["input_per_1m_usd"] = 9
    expected.write_text(json.dumps(wrong))
    after = command("prices", "--store", ledger, "--check", "expected.json", "--json")

    assert (done.code, done.err) == (0, "")
    assert after.code == 3
    assert json.loads(after.out)["differences"] == [
        "gpt-4o-mini: input_per_1m_usd is 0.15, expected 9"
    ]


def test_a_wrong_file_of_prices_is_named(command: Run, folder: Path) -> None:
    (folder / "expected.yaml").write_text("models: {gpt-4o: {input: 1}}")
    done = command("prices", "--check", "expected.yaml")

    assert done.code == 2
    assert 'models."gpt-4o"' in done.err


def test_an_empty_ledger_has_no_prices(command: Run, folder: Path) -> None:
    done = command("prices", "--store", "sqlite:///none.sqlite3")

    assert done.code == 0
    assert "Nothing was called" in done.out
