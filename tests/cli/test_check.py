"""`guardrails check`: what is configured, where from, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

CONFIG = """\
version: 1
store: ${GUARDRAILS_STORE:-sqlite:///ledger.sqlite3}
defaults:
  session: { max_cost_usd: 0.50, max_steps: 40 }
  on_store_error: closed
  loop:
    repeats: 4
agents:
  summarizer: { session: { max_cost_usd: 0.05 } }
budgets:
  - name: customer-month
    per: [customer_id]
    every: month
    max_cost_usd: 25
    known: { acme: { max_cost_usd: 500 } }
    unknown: { max_cost_usd: 100 }
tools:
  maps/*: { cost_per_call_usd: 0.005, max_calls: 50 }
"""


@pytest.fixture
def config(folder: Path) -> Path:
    path = folder / "guardrails.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_every_value_says_where_it_is_from(
    command: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of stdout at 80 columns: variables win over the file."""
    monkeypatch.setenv("GUARDRAILS_MAX_STEPS", "7")

    done = command("check")

    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == """\
file                      guardrails.yaml
precedence                code > GUARDRAILS_* variables > file > defaults

store                     sqlite:///ledger.sqlite3        guardrails.yaml:2,
                                                          ${GUARDRAILS_STORE}
store_file                ledger.sqlite3
project_id                default                         default
mode                      enforce                         default
on_store_error            closed                          guardrails.yaml:5
on_unpriced               refuse                          default
estimate                  default                         default
max_wait_s                0                               default

session
  max_cost_usd            0.5                             guardrails.yaml:4
  max_steps               7                               GUARDRAILS_MAX_STEPS

agent summarizer
  max_cost_usd            0.05                            guardrails.yaml:9
  max_steps               7                               GUARDRAILS_MAX_STEPS

budget customer-month
  per                     customer_id                     guardrails.yaml:12
  every                   month                           guardrails.yaml:13
  max_cost_usd            25                              guardrails.yaml:14
  action                  stop                            default
  known.acme              max_cost_usd 500                guardrails.yaml:15
  unknown                 max_cost_usd 100 together       guardrails.yaml:16

tools
  maps/*                  0.005, 50 calls at most         guardrails.yaml:18

loop
  action                  stop                            default
  repeats                 4                               guardrails.yaml:7
  cycle_repeats           2                               default
  error_repeats           5                               default
  polling_repeats         10                              default
  within                  20                              default
"""
    )


def test_json(command: Run, config: Path) -> None:
    """Programs read the same."""
    done = command("check", "--json", "--project", "shop")

    content = json.loads(done.out)
    assert content["schema_version"] == 1
    assert content["file"] == "guardrails.yaml"
    assert content["settings"]["project_id"] == {"value": "shop", "from": "--project"}
    groups = {group["name"]: group["settings"] for group in content["groups"]}
    assert groups["agent summarizer"]["max_cost_usd"] == {
        "value": "0.05",
        "from": "guardrails.yaml:9",
    }


def test_without_a_configuration_nothing_is_limited(command: Run) -> None:
    """It says so, and where a ledger would be."""
    done = command("check")

    assert done.code == 0
    assert "file                      none was found\n" in done.out
    assert "note                      nothing is limited\n" in done.out
    assert (
        "  no limit                                                default" in done.out
    )


def test_a_password_is_not_shown(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Screens are shared, and output is kept."""
    monkeypatch.setenv("GUARDRAILS_STORE", "redis://user:hunter2@db:6379/0?password=h2")

    shown = command("check").out + command("check", "--json").out

    assert "redis://***@db:6379/0" in shown
    assert "hunter2" not in shown
    assert "h2" not in shown
    assert "GUARDRAILS_STORE" in shown


def test_a_file_elsewhere_is_named_once(
    command: Run, config: Path, tmp_path: Path
) -> None:
    """Its folder would not fit beside each value."""
    moved = config.rename(tmp_path / "other.yaml")

    done = command("check", "--config", str(moved))

    assert f"file                      {moved}\n" in done.out
    assert "other.yaml:5" in done.out
    assert done.out.count(str(moved)) == 1


def test_a_wrong_configuration_exits_with_2(command: Run, folder: Path) -> None:
    """Each defect with its place, its key and its fix; stdout stays empty."""
    text = "defaults:\n  session:\n    max_cost: 1\nmode: enforced\n"
    (folder / "guardrails.yaml").write_text(text, encoding="utf-8")

    done = command("check")

    assert (done.code, done.out) == (2, "")
    assert "guardrails.yaml:3:5: defaults.session.max_cost: unknown key." in done.err
    assert "guardrails.yaml:4:7: mode: 'enforced' is not one of" in done.err


def test_a_url_that_names_no_store_exits_with_2(command: Run) -> None:
    """As the guard would refuse it."""
    done = command("check", "--store", "postgres://u:hunter2@h/db")

    assert (done.code, done.out) == (2, "")
    assert "hunter2" not in done.err


def test_nothing_is_opened(command: Run, config: Path, folder: Path) -> None:
    """A check may run where no store can be reached."""
    command("check")

    assert [path.name for path in folder.iterdir()] == ["guardrails.yaml"]


def test_it_says_who_cannot_finish(command: Run, folder: Path) -> None:
    """The reserve is shown also where nobody wrote it."""
    config = "defaults: { session: { max_cost_usd: 0.50 }, on_limit: finish }\n"
    (folder / "guardrails.yaml").write_text(config, encoding="utf-8")

    done = command("check")

    assert done.code == 0
    assert "note                      on_limit: only agents of create_agent" in done.out
    assert "  on_limit                finish                " in done.out
    assert (
        "  closing_reserve_usd     0.05                            default" in done.out
    )


def test_where_alerts_go_is_shown_without_its_secrets(
    command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI="
    (folder / "guardrails.yaml").write_text(
        "store: memory://\n"
        "alerts:\n"
        "  slack: https://hooks.slack.com/services/T00/B00/hunter2\n"
        "  webhook: { url: https://alerts.example.org/hunter2 }\n"
        "  on: [soft, stop]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("GUARDRAILS_WEBHOOK_SECRET", f"{secret},{secret}")

    shown = command("check").out

    assert "hunter2" not in shown + command("check", "--json").out
    assert secret not in shown
    alerts = shown[shown.index("alerts\n") :].splitlines()[1:]
    assert [" ".join(line.split()) for line in alerts] == [
        "slack hooks.slack.com/services/*** guardrails.yaml:3",
        "webhook.url https://alerts.example.org/*** guardrails.yaml:4",
        "webhook.secret ***, *** GUARDRAILS_WEBHOOK_SEC",
        "RET",
        "on soft, stop guardrails.yaml:5",
        "cooldown_s 900 default",
        "anomaly.customer_vs_14d_median",
        "3 default",
        "anomaly.session_vs_median",
        "5 default",
        "anomaly.min_usd 1 default",
    ]
