"""`guardrails export`: events for other programs, in a file or on standard output."""

import contextlib
import gc
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from guardrails.cli.files import writing
from guardrails.cli.ledgers import reading
from guardrails.cli.options import (
    ConfigOption,
    ProjectOption,
    StoreOption,
    configured,
)
from guardrails.cli.screens.progress import Progress
from guardrails.config import Configuration
from guardrails.core.decisions import format_count
from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.errors import ConfigurationError
from guardrails.exports import FORMATS, EventWriter, open_writer
from guardrails.exports.focus import MeterRates
from guardrails.exports.selection import Selection
from guardrails.ports import History
from guardrails.prices import Prices
from guardrails.spend.asking import HOURS_MAX
from guardrails.spend.spans import seconds_of
from guardrails.system.clock import SystemClock

__all__ = ["export"]

HOURS = 24


def export(
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help=f"{', '.join(FORMATS)}.")
    ] = "jsonl",
    hours: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=HOURS_MAX,
            metavar="N",
            help="How far to look back; 24 by default.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The same as a time: 36h, 7d."),
    ] = None,
    output: Annotated[
        str, typer.Option(metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATTERN",
            help="Only what matches, as in agent=onboarding_*; may be given again.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that exists.")
    ] = False,
    store: StoreOption = None,
    project: ProjectOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the events of the last hours, one row per call."""
    path = _target(output, form)
    selection = Selection.of(where or ())
    configuration = configured(config, store=store, project=project)
    with reading(configuration.store) as history:
        events = _Events(
            history,
            project_id=configuration.project_id,
            since_ms=_since_ms(hours, since),
            selection=selection,
        )
        with writing(path, force=force) as out:
            writer = open_writer(form, out, _rates_of(configuration))
            _write(events, writer)
    if path is not None:
        typer.echo(f"{format_count(events.written, 'event')} in {path}", err=True)
    _tell_what_is_left_out(events, writer)


def _target(output: str, form: str) -> Path | None:
    """Returns the file to write, `None` for standard output."""
    if output != "-":
        return Path(output)
    if form.endswith("parquet") and sys.stdout.isatty():
        raise ConfigurationError(
            "--output: Parquet is not for a terminal. Name a file: --output "
            "events.parquet"
        )
    return None


def _tell_what_is_left_out(events: "_Events", writer: EventWriter) -> None:
    if writer.left_out:
        typer.echo(
            f"guardrails: {format_count(writer.left_out, 'call')} had no price and no "
            "charge. Give them one: guardrails prices",
            err=True,
        )
    if events.missing > 0:
        typer.echo(
            f"guardrails: the sums of this time count "
            f"{format_count(events.missing, 'call')} more, whose events are no longer "
            "kept. They are not in the export.",
            err=True,
        )


@dataclass
class _Events:
    """The events to write, and how many there were."""

    history: History
    project_id: str
    since_ms: int
    selection: Selection
    read: int = 0
    written: int = 0
    counted: int = 0
    """Calls of that time by the sums, which outlive the events."""

    @property
    def missing(self) -> int:
        """Calls whose events are not kept."""
        if self.selection.session_id is not None:
            return 0
        return self.counted - self.read

    def pages(self) -> Iterator[Sequence[FlatEvent]]:
        """Yields the events that are meant, page by page."""
        # First the sums and then the events: of a call in between there are only both.
        self.counted = sum(
            spend.steps
            for spend in self.history.spend(
                project_id=self.project_id,
                by="project_id",
                since_ms=self.since_ms,
                until_ms=SystemClock().now_ms(),
            )
        )
        pages = self.history.event_pages(
            project_id=self.project_id,
            since_ms=self.since_ms,
            session_id=self.selection.session_id,
        )
        for page in pages:
            self.read += len(page)
            meant = self.selection.of_page(page)
            self.written += len(meant)
            yield meant


def _write(events: _Events, writer: EventWriter) -> None:
    with Progress("Exporting", "events") as progress, _without_collection():
        try:
            for page in events.pages():
                if page:
                    writer.write(page)
                progress.show(events.read, of=events.counted)
        finally:
            writer.finish()  # Also of what fails: pyarrow would do so at its own time.


@contextlib.contextmanager
def _without_collection() -> Generator[None]:
    """Keeps the collector of cycles away: rows are in none, and it costs a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rates_of(configuration: Configuration) -> MeterRates:
    """Returns what tells the rates of a model, by meter."""
    book = Prices(configuration.model_prices, configuration.aliases)

    def rates(provider: str | None, model: str, now_ms: int) -> Sequence[int] | None:
        card = book.card(provider=provider, model=model, now_ms=now_ms)
        if not card.tiers:
            return None
        _, smallest = card.tiers[-1]
        return (
            smallest.input,
            smallest.cache_read,
            smallest.cache_write,
            smallest.output,
        )

    return rates


def _since_ms(hours: int | None, since: str | None) -> int:
    """Returns the start of the first hour, which counts in full as in other reports."""
    if hours is not None and since is not None:
        raise ConfigurationError("--hours and --since: choose one of them.")
    seconds = (hours or HOURS) * 3_600
    if since is not None:
        seconds = seconds_of(since, option="--since")
    since_ms = SystemClock().now_ms() - round(seconds * 1_000)
    return max(0, since_ms // HOUR_MS * HOUR_MS)
