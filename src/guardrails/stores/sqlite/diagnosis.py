"""Diagnosis of a SQLite store: the file, its disk, and whether the ledger adds up."""

import os
import shlex
import sqlite3
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from guardrails.core.accounts import FORGOTTEN
from guardrails.stores.balance import (
    Held,
    HeldBy,
    Imbalance,
    balance_check,
    held_of,
    imbalance_of,
)
from guardrails.stores.diagnosis import Check, Status
from guardrails.stores.folders import (
    NETWORK_FILE_SYSTEMS,
    file_system_of,
    folder_check,
    space_check,
)
from guardrails.stores.sqlite.store import SQLiteStore

__all__ = ["diagnose"]

MOUNTS = Path("/proc/mounts")

PROBLEMS_MAX = 3
"""Defects of the file that are named; one is enough to restore it."""


def diagnose(store: SQLiteStore) -> list[Check]:
    """Checks a ledger's file. One that does not exist is not created.

    Raises:
        StoreUnavailable: If it exists and cannot be opened as a ledger.
    """
    path = store.path.absolute()
    if not path.exists():
        folder = folder_check(path.parent, name="store", purpose="nothing is recorded")
        text = f"{path}: no ledger yet, the first guard makes it"
        is_well = folder.status in (Status.OK, Status.WARN)
        found = Check(name="store", status=Status.OK, text=text) if is_well else folder
        return [found, _file_system(path), space_check(path, name="disk")]
    with store.reading() as connection:
        return [
            _file(path),
            _file_system(path),
            space_check(path, name="disk"),
            _integrity(connection, path),
            _balance(connection, path),
        ]


def _file(path: Path) -> Check:
    is_writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)
    if not (path.is_file() and is_writable):
        return Check(
            name="store",
            status=Status.FAIL,
            text=f"{path} and its directory must be writable for this user",
            commands=(shlex.join(["ls", "-ld", str(path.parent), str(path)]),),
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Check(
            name="store",
            status=Status.WARN,
            text=f"{path} has mode {mode:04o}: other users can read or change it",
            commands=(shlex.join(["chmod", "600", str(path)]),),
        )
    return Check(name="store", status=Status.OK, text=f"{path} is private and writable")


def _file_system(path: Path) -> Check:
    name = "filesystem"
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        text = "this system does not say whether the file is on a local disk"
        return Check(name=name, status=Status.UNKNOWN, text=text)
    return _judged(file_system_of(path.resolve(), mounts))


def _judged(kind: str | None) -> Check:
    name = "filesystem"
    if kind is None:
        text = "the type of the file system is not known"
        return Check(name=name, status=Status.UNKNOWN, text=text)
    if kind not in NETWORK_FILE_SYSTEMS:
        return Check(name=name, status=Status.OK, text=f"{kind}, on this machine")
    return Check(
        name=name,
        status=Status.FAIL,
        text=f"{kind} is a network file system: its locks do not keep processes "
        "apart, so limits may be passed and the file damaged. For several machines "
        "use Redis",
        commands=("export GUARDRAILS_STORE=redis://host:6379/0",),
    )


def _integrity(connection: sqlite3.Connection, path: Path) -> Check:
    name = "integrity"
    try:
        query = f"PRAGMA quick_check({PROBLEMS_MAX})"
        problems = [str(row[0]) for row in connection.execute(query)]
    except sqlite3.DatabaseError as error:
        problems = [str(error)]
    if problems == ["ok"]:
        return Check(name=name, status=Status.OK, text="the file is sound")
    first = " ".join(problems[0].split())
    return Check(
        name=name,
        status=Status.FAIL,
        text=f"the file is damaged ({first}). Save what can be read, then put it in "
        "its place while no agent runs",
        commands=(
            f'sqlite3 {shlex.quote(str(path))} ".recover" | sqlite3 recovered.sqlite3',
        ),
    )


def _balance(connection: sqlite3.Connection, path: Path) -> Check:
    """Compares accounts and holds within one transaction: at one instant."""
    try:
        connection.execute("BEGIN")
        try:
            holds = connection.execute(
                "SELECT state, accounts, cost_nano_usd, tokens, expires_at_ms "
                "FROM holds WHERE state IN ('open', 'unconfirmed')"
            ).fetchall()
            accounts = connection.execute(
                "SELECT key, held_nano_usd, unconfirmed_nano_usd, held_tokens, "
                "unconfirmed_tokens FROM accounts"
            ).fetchall()
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except sqlite3.DatabaseError:
        text = "it cannot be read while the file is damaged"
        return Check(name="balance", status=Status.UNKNOWN, text=text)
    return balance_check(
        _imbalances(holds, accounts),
        accounts=len(accounts),
        holds=len(holds),
        mend=lambda found: _mending(path, found),
    )


def _imbalances(
    holds: Iterable[Sequence[object]], accounts: Iterable[Sequence[object]]
) -> list[Imbalance]:
    sums = held_of(_hold(row) for row in holds)
    booked = {
        str(key): Held(
            held_nano_usd=_int(held),
            unconfirmed_nano_usd=_int(unconfirmed),
            held_tokens=_int(held_tokens),
            unconfirmed_tokens=_int(unconfirmed_tokens),
        )
        for key, held, unconfirmed, held_tokens, unconfirmed_tokens in accounts
    }
    compared = (
        imbalance_of(key, booked=booked.get(key), holds=sums.get(key, Held()))
        for key in {*booked, *sums}
    )
    return [one for one in compared if one is not None]


def _hold(row: Sequence[object]) -> HeldBy:
    state, accounts, cost, tokens, expires_at_ms = row
    amounts = (
        Held(held_nano_usd=_int(cost), held_tokens=_int(tokens))
        if state == "open"
        else Held(unconfirmed_nano_usd=_int(cost), unconfirmed_tokens=_int(tokens))
    )
    return HeldBy(
        accounts=tuple(key for key in str(accounts).split("\n") if key != FORGOTTEN),
        amounts=amounts,
        expires_at_ms=_int(expires_at_ms),
    )


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _mending(path: Path, found: Imbalance) -> str:
    """Writes the command that adds what an account misses, also under traffic."""
    missing = found.missing
    changes = {
        "held_nano_usd": missing.held_nano_usd,
        "unconfirmed_nano_usd": missing.unconfirmed_nano_usd,
        "held_tokens": missing.held_tokens,
        "unconfirmed_tokens": missing.unconfirmed_tokens,
    }
    sets = ", ".join(
        f"{name} = {name} + {change}" for name, change in changes.items() if change
    )
    key = found.account.replace("'", "''")
    statement = f"UPDATE accounts SET {sets} WHERE key = '{key}'"
    return f'sqlite3 {shlex.quote(str(path))} \\\n  "{statement}"'
