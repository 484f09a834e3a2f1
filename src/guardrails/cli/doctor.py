"""`guardrails doctor`: whether limits hold, and what to do where they may not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer

from guardrails.cli.callbacks import callback_check
from guardrails.cli.exits import EXIT_FAILURE, EXIT_STORE
from guardrails.cli.ledgers import shown_url
from guardrails.cli.options import (
    ConfigOption,
    JsonOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.screens.limits import policy_text
from guardrails.config import Configuration
from guardrails.core.policy import Mode, Policy
from guardrails.errors import StoreUnavailable
from guardrails.stores import journal_folder, journal_store, open_store
from guardrails.stores.diagnosis import Check, Status, worst_of
from guardrails.stores.folders import folder_check
from guardrails.stores.memory import MemoryStore
from guardrails.system.clock import SystemClock

__all__ = ["doctor", "examined"]


def doctor(
    as_json: JsonOption = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Check that limits hold: the store, its ledger, the callbacks."""
    configuration = configured(config, store=store, project=project)
    checks, is_reachable = examined(configuration, journal=journal_folder())
    # Imported late: it brings rich, which the other commands may not need.
    from guardrails.cli.screens.checks import checks_json, show_checks

    if as_json:
        url = shown_url(configuration.store)
        typer.echo(checks_json(checks, store=url, sources=configuration.sources))
    else:
        show_checks(checks)
    if not is_reachable:
        raise typer.Exit(EXIT_STORE)
    if worst_of(checks) is Status.FAIL:
        raise typer.Exit(EXIT_FAILURE)


def examined(
    configuration: Configuration, *, journal: Path
) -> tuple[Sequence[Check], bool]:
    """Checks everything, and tells whether the store could be reached.

    Args:
        configuration: As a guard would use it.
        journal: The folder that keeps what the store could not take.

    Raises:
        ConfigurationError: If the URL names no store of this version.
    """
    limits = _limits(configuration.policy)
    try:
        found = _store_checks(configuration, journal)
    except StoreUnavailable as error:
        text = str(error).removeprefix("store: ")
        return [limits, Check(name="store", status=Status.FAIL, text=text)], False
    return [limits, *found, callback_check()], True


def _limits(policy: Policy) -> Check:
    name = "limits"
    if policy.limits_nothing:
        return Check(
            name=name,
            status=Status.WARN,
            text="nothing is limited: everything is recorded, and loops only warn",
            commands=("export GUARDRAILS_MAX_COST_USD=1.00",),
        )
    if policy.mode is not Mode.ENFORCE:
        what = "records and stops nothing"
        if policy.mode is Mode.OFF:
            what = "does nothing at all"
        return Check(
            name=name,
            status=Status.WARN,
            text=f"mode {policy.mode.value} {what}, whatever is limited",
            commands=("export GUARDRAILS_MODE=enforce",),
        )
    return Check(name=name, status=Status.OK, text=policy_text(policy))


def _store_checks(configuration: Configuration, journal: Path) -> list[Check]:
    store = open_store(configuration.store or "sqlite")
    if isinstance(store, MemoryStore):
        text = "memory:// ends with the process that uses it: nothing to look at"
        return [Check(name="store", status=Status.WARN, text=text)]
    try:
        # Imported late: each brings what the other has no use for.
        from guardrails.stores.sqlite import SQLiteStore

        if isinstance(store, SQLiteStore):
            from guardrails.stores.sqlite.diagnosis import diagnose

            found = diagnose(store)
            purpose = "what is paid while the file is locked ends with its process"
            kept = folder_check(journal, name="journal", purpose=purpose)
            if kept.status is Status.FAIL:  # Two things have to fail before it matters.
                kept = replace(kept, status=Status.WARN)
            return [*found, kept]
        from guardrails.stores.redis import RedisStore
        from guardrails.stores.redis.health import diagnosis

        assert isinstance(store, RedisStore)
        found = diagnosis.diagnose(
            store, project_id=configuration.project_id, clock=SystemClock()
        )
        from guardrails.stores.resilient.left import left_check

        purpose = "what happens while the store is away would be lost"
        kept = folder_check(journal, name="journal", purpose=purpose)
        left = left_check(journal, store=journal_store(store.client.topology.url))
        return [*found, kept, *([] if left is None else [left])]
    finally:
        store.close()
