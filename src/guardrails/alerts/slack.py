"""Slack: an alert as a message of Block Kit.

Names come from outside: they can neither mention anybody nor link anywhere, nor
break the layout or Slack's limits on lengths.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from guardrails.alerts.causes import Insight
from guardrails.alerts.digest import Digest
from guardrails.alerts.links import Link, links_of
from guardrails.alerts.words import (
    commands,
    counted,
    headline,
    meaning,
    share,
    subject,
)
from guardrails.core.alerting.alerts import Alert
from guardrails.core.decisions import format_count
from guardrails.core.money import format_usd
from guardrails.core.telling import AlertKind

if TYPE_CHECKING:
    from slack_sdk.models.blocks import Block, MarkdownTextObject

__all__ = ["slack_digest", "slack_message"]

NAME_CHARACTERS_MAX = 60
"""A longer name would hide the rest of its line."""

COMMAND_CHARACTERS_MAX = 700
"""Two of them, with every sign escaped, fit into a section's 3,000 characters."""

BAR_CELLS = 10

_SIGNS = {
    AlertKind.SOFT: "⚠️",
    AlertKind.STOP: "⛔",
    AlertKind.LIMIT: "🚫",
    AlertKind.LOOP: "🔁",
    AlertKind.RAISED: "🔓",
    AlertKind.DEGRADED: "🟡",
    AlertKind.RECOVERED: "🟢",
    AlertKind.ANOMALY: "📈",
    AlertKind.PACE: "⏳",
    AlertKind.DAILY: "🧾",
    AlertKind.UNPRICED: "🏷️",
    AlertKind.TEST: "🔔",
}

_NO_LINK = "\u2060"
"""A word joiner: nobody sees it, and Slack finds no URL and no mention around it."""

_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Control characters, and those that reverse or hide what is next to them."""

_LINKING = re.compile(r"(?<=:)(?=/)|(?<=@)(?=\S)|(?<=\.)(?=[^\W\d])")
"""Where a URL, a mention or the name of a host would go on."""

_FIELDS = (
    ("Agent", "agent"),
    ("Customer", "customer_id"),
    ("User", "user_id"),
    ("Feature", "feature"),
    ("Prompt", "prompt_version"),
    ("Session", "session_id"),
)


def slack_message(
    alert: Alert, insight: Insight, links: Sequence[Link] = ()
) -> dict[str, object]:
    """Writes an alert as the payload of an incoming webhook."""
    from slack_sdk.models.blocks import SectionBlock

    kind = "Sample: " if alert.is_sample else ""
    title = f"{_SIGNS[alert.kind]} {kind}{headline(alert, who=_cut(subject(alert)))}"
    tools = " → ".join(map(_code, _tools(alert)))
    blocks: list[Block] = [
        _header(title),
        _section(_meaning(alert).replace("\0", tools), _bar(alert)),
    ]
    fields = _fields(alert, insight)
    if fields:
        blocks.append(SectionBlock(fields=[_text(each) for each in fields]))
    if insight.causes:
        blocks.append(_section("*Where it went*", *_causes(insight)))
    blocks.append(_section("*What to do*", *map(_command, commands(alert))))
    blocks += _buttons(links_of(alert, links))
    scope = _scope(alert)
    threshold = [_escaped(_cut(alert.threshold))] if alert.threshold else []
    project = f"project {_escaped(_cut(alert.project_id))}"
    blocks.append(_context(*scope, *threshold, project, _date(alert.time_ms)))
    tools = " → ".join(map(_cut, _tools(alert)))
    return _payload(f"{title}. {meaning(alert, tool=tools, shown=_cut)}", blocks)


def slack_digest(digest: Digest) -> dict[str, object]:
    """Writes many alerts as one message."""
    count = format_count(digest.total, "alert")
    title = f"🔔 {count} of guardrails" if digest.total else "🔔 Alerts of guardrails"
    lines = [f"{counted(digest.counts)}."] if digest.total else []
    lines += [
        f"• {_code(name)}: {_escaped(counted(counts))}"
        for name, counts in digest.agents
    ]
    if digest.lost:
        lost = format_count(digest.lost, "earlier alert")
        lines.append(f"{lost} could not be delivered.")
    blocks = [
        _header(title),
        _section(*lines),
        _section("*What to do*", *map(_command, digest.commands)),
        _context(f"since {_date(digest.since_ms)}"),
    ]
    return _payload(f"{title}: {counted(digest.counts)}", blocks)


def _meaning(alert: Alert) -> str:
    """Writes what an alert means, with a gap for the tools."""
    return _escaped(meaning(alert, tool="\0", shown=lambda name: f"`{_cut(name)}`"))


def _payload(fallback: str, blocks: Sequence["Block"]) -> dict[str, object]:
    return {
        "text": _LINKING.sub(_NO_LINK, _escaped(fallback)),
        # They check themselves against Slack's limits here.
        "blocks": [_plain(block) for block in blocks],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _plain(block: "Block") -> dict[str, object]:
    # slack_sdk's signature has no types; JSON has only these.
    to_dict = cast("Callable[[], dict[str, object]]", block.to_dict)
    return to_dict()


def _fields(alert: Alert, insight: Insight) -> list[str]:
    who = alert.attribution
    if who is None:
        return []
    found = [
        f"*{label}*\n{_code(name)}"
        for label, key in _FIELDS
        if (name := who.value(key)) is not None
    ]
    steps = alert.steps if insight.steps is None else insight.steps
    found += [] if steps is None else [f"*Steps*\n{steps:,}"]
    return [*found, *([] if alert.by is None else [f"*By*\n{_code(alert.by)}"])]


def _scope(alert: Alert) -> list[str]:
    if alert.is_session:
        return ["budget of the session"]
    if alert.scope is None or alert.kind is AlertKind.STOP:
        return []  # What a person stopped is in the headline.
    return [f"budget of {_escaped(_cut(alert.scope))}"]


def _causes(insight: Insight) -> list[str]:
    return [
        f"• {_code(spend.name or '?')}  {format_usd(spend.total_nano_usd)} · "
        f"{format_count(spend.steps, 'call')}"
        for spend in insight.causes
    ]


def _bar(alert: Alert) -> str:
    percent = share(alert)
    if percent is None:
        return ""
    full = min(BAR_CELLS, percent * BAR_CELLS // 100)
    return f"{'█' * full}{'░' * (BAR_CELLS - full)} {percent} %"


def _tools(alert: Alert) -> tuple[str, ...]:
    """Returns the tool that repeats, or those of the round that does."""
    finding = alert.finding
    return (finding.tools or (finding.tool,)) if finding else ()


def _date(time_ms: int) -> str:
    """Shows an instant in the time zone of whoever reads it."""
    at = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    shown = "{date_short_pretty} at {time_secs}"
    return f"<!date^{time_ms // 1000}^{shown}|{at:%Y-%m-%d %H:%M:%S} UTC>"


def _header(text: str) -> "Block":
    from slack_sdk.models.blocks import HeaderBlock, PlainTextObject

    return HeaderBlock(text=PlainTextObject(text=_UNSEEN.sub("", text), emoji=False))


def _buttons(links: Sequence[tuple[str, str]]) -> list["Block"]:
    from slack_sdk.models.blocks import ActionsBlock, ButtonElement

    buttons = [
        ButtonElement(text=text, url=url, action_id=f"link-{index}")
        for index, (text, url) in enumerate(links)
    ]
    return [ActionsBlock(elements=buttons)] if buttons else []


def _section(*lines: str) -> "Block":
    from slack_sdk.models.blocks import SectionBlock

    return SectionBlock(text=_text("\n".join(line for line in lines if line)))


def _context(*parts: str) -> "Block":
    from slack_sdk.models.blocks import ContextBlock

    return ContextBlock(elements=[_text(" · ".join(parts))])


def _text(text: str) -> "MarkdownTextObject":
    from slack_sdk.models.blocks import MarkdownTextObject

    # Verbatim: Slack makes no links and mentions of what looks like one.
    return MarkdownTextObject(text=text, verbatim=True)


def _command(command: str) -> str:
    """Writes a command so that copying it copies all of it, and nothing else."""
    is_long = len(command) > COMMAND_CHARACTERS_MAX
    if is_long or "`" in command or _UNSEEN.search(command):
        return "`guardrails stops`"
    return f"`{_escaped(command)}`"


def _code(name: str) -> str:
    return f"`{_escaped(_cut(name))}`"


def _cut(name: str) -> str:
    text = _UNSEEN.sub("", name).replace("`", "'")
    return (
        text
        if len(text) <= NAME_CHARACTERS_MAX
        else f"{text[: NAME_CHARACTERS_MAX - 1]}…"
    )


def _escaped(text: str) -> str:
    """Writes the three characters that Slack reads; see its page on formatting."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
