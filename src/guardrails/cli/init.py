"""`guardrails init`: guards the MCP servers of the clients that are installed here."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.exits import EXIT_FAILURE
from guardrails.cli.mcp_hosts.by_hand import is_by_hand, language_of, listed, written
from guardrails.cli.mcp_hosts.clients import (
    Client,
    Server,
    State,
    clients,
    rewired,
    servers_in,
    unwired,
)
from guardrails.cli.options import configured
from guardrails.cli.template import TEMPLATE
from guardrails.config.loading import FILE_NAME, load_configuration
from guardrails.errors import ConfigurationError
from guardrails.stores import is_relative, shared_url

__all__ = ["init"]

BACKUP_SUFFIX = ".before-guardrails"

_SAID = {
    State.OPEN: "is not guarded",
    State.GUARDED: "is guarded",
    State.REMOTE: "is reached by its URL: guard.wrap(), or a bridge such as\n"
    "    guardrails wrap -- npx mcp-remote URL",
    State.UNREADABLE: "has no command that can be read: left alone",
}


def init(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, change nothing.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take guardrails out of the clients again.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--client", metavar="NAME", help="Only this client; repeatable."),
    ] = None,
) -> None:
    """Guard the MCP servers of Claude, Cursor, VS Code, Zed, Cline and others."""
    places = _chosen(only)
    prefix = [
        _program(),
        "wrap",
        "--config",
        str(_configuration(is_undo=undo, is_dry=dry_run)),
    ]
    is_well = [
        _rewire(place, prefix, is_undo=undo, is_dry=dry_run)
        for place in places
        if place.path.exists()
    ]
    if not is_well:
        typer.echo("No MCP client of those that guardrails knows is set up here.")
    elif not undo and not dry_run:
        typer.echo(
            "Restart the clients. `guardrails costs --by tool` shows what their tools "
            "do;\nguardrails.yaml limits it."
        )
    if not all(is_well):
        raise typer.Exit(EXIT_FAILURE)


def _chosen(only: Sequence[str] | None) -> Sequence[Client]:
    places = clients(home=Path.home(), cwd=Path.cwd(), environ=os.environ)
    if not only:
        return places
    wanted = {name.casefold() for name in only}
    chosen = [
        place
        for place in places
        if place.name.casefold() in wanted
        or place.name.casefold().partition(" (")[0] in wanted
    ]
    if not chosen:
        names = ", ".join(place.name for place in places if "(" not in place.name)
        raise typer.BadParameter(
            f"{', '.join(only)} is no client that guardrails knows: {names}."
        )
    return chosen


def _program() -> str:
    """Returns the path of this command: clients do not know the shell's PATH."""
    beside = Path(sys.executable).with_name("guardrails")
    found = str(beside) if beside.exists() else shutil.which("guardrails")
    return found or "guardrails"


def _configuration(*, is_undo: bool, is_dry: bool) -> Path:
    """Returns the configuration for the servers; writes one if there is none.

    Raises:
        ConfigurationError: If it is wrong. That is no reason to keep what was done.
    """
    found: Path | None = None
    with contextlib.suppress(*(ConfigurationError,) if is_undo else ()):
        found = configured(None, store=None, project=None).path
        _refuse_relative_store()
    if found is not None:
        return found
    path = Path.cwd() / FILE_NAME
    if not is_undo and not is_dry:
        path.write_text(TEMPLATE, encoding="utf-8")
        typer.echo(f"Wrote {path}: nothing is limited before you say so there.")
    return path


def _refuse_relative_store() -> None:
    """Refuses a ledger that would be another one for each client.

    Raises:
        ConfigurationError: If the store that the file names is a relative path.
    """
    # Clients do not have what this shell says of it.
    environ = {key: os.environ[key] for key in os.environ if key != "GUARDRAILS_STORE"}
    try:
        known = load_configuration(None, environ=environ, cwd=Path.cwd(), overrides={})
    except ConfigurationError:
        return  # It needs that variable: then clients are given it, too.
    if known.store is not None and is_relative(known.store):
        raise ConfigurationError(
            f"{known.origins['store']}: store: {known.store!r} is a path from the "
            "working directory, and clients start servers in others: each would have a "
            "ledger, and budgets, of its own. Write the whole path: "
            f"{shared_url(known.store)}"
        )


def _rewire(
    place: Client, prefix: Sequence[str], *, is_undo: bool, is_dry: bool
) -> bool:
    """Rewires one file; returns whether it could be read and written."""
    typer.echo(f"{place.name}: {place.path}")
    try:
        # Not read_text: it would turn the file's line ends into ours.
        text = place.path.read_bytes().decode("utf-8")
        if is_by_hand(place):
            servers = listed(text, place)
        else:
            servers = servers_in(text, place.key)
    except (OSError, ValueError) as error:
        typer.echo(f"  cannot be read, left alone: {error}", err=True)
        return False
    if not servers:
        typer.echo("  has no servers")
    changing = State.GUARDED if is_undo else State.OPEN
    if is_by_hand(place):
        for server in servers:
            _tell_by_hand(server, place, prefix, is_undo=is_undo)
        return True
    for server in servers:
        _tell(server, is_changing=server.state is changing, is_dry=is_dry)
    new = unwired(text, servers) if is_undo else rewired(text, servers, prefix)
    backup = place.path.with_name(place.path.name + BACKUP_SUFFIX)
    restored = _restored(backup, text, place, prefix) if is_undo else None
    new = restored or new
    if is_dry or new == text:
        return True
    try:
        target = place.path.resolve()
        if not is_undo and not backup.exists():
            _write(backup, text, like=target)
        if target.read_bytes() != text.encode("utf-8"):
            raise OSError("it was changed at this moment; run this again")
        _write(target, new, like=target)
        if restored is not None:
            backup.unlink()
    except OSError as error:
        typer.echo(f"  cannot be written, left alone: {error}", err=True)
        return False
    return True


def _tell(server: Server, *, is_changing: bool, is_dry: bool) -> None:
    said = _SAID[server.state]
    if is_changing:
        verb = "would be" if is_dry else "is now"
        said = f"{verb} {'guarded' if server.state is State.OPEN else 'unguarded'}"
    typer.echo(f"  {server.name} {said}")


def _tell_by_hand(
    server: Server, place: Client, prefix: Sequence[str], *, is_undo: bool
) -> None:
    typer.echo(f"  {server.name} {_SAID[server.state]}")
    if server.state is (State.GUARDED if is_undo else State.OPEN):
        typer.echo(f"    init writes no {language_of(place)}. Write into its entry:")
        for line in written(server, place, prefix, is_undo=is_undo):
            typer.echo(f"      {line}")


def _restored(
    backup: Path, text: str, place: Client, prefix: Sequence[str]
) -> str | None:
    """Returns the backup, if nothing but guardrails has changed the file since."""
    with contextlib.suppress(OSError, ValueError):
        before = backup.read_bytes().decode("utf-8")
        servers = servers_in(before, place.key)
        # What somebody has guarded by hand before that is to be taken out, too.
        is_bare = all(server.state is not State.GUARDED for server in servers)
        if is_bare and rewired(before, servers, prefix) == text:
            return before
    return None


def _write(path: Path, text: str, *, like: Path) -> None:
    """Writes a file as a whole, with the owner and the mode of another.

    Raises:
        OSError: If it cannot be written, or not for that owner.
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(text.encode("utf-8"))
        wanted, made = like.stat(), Path(name).stat()
        if (wanted.st_uid, wanted.st_gid) != (made.st_uid, made.st_gid):
            os.chown(name, wanted.st_uid, wanted.st_gid)
        shutil.copymode(like, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
