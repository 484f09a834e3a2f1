"""FOCUS 1.2: hourly charges in the words of the FinOps cost and usage specification.

One row is one hour of one meter: a class of a model's tokens, or the calls of a tool,
for one customer, agent, feature, user and prompt version. What a call cost was booked
as a whole; it is divided among its meters by their rates, or by their tokens where no
rate is known. The parts add up exactly to what was booked. A call of unknown cost is
no charge and has no row: it is counted.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from guardrails.core.reporting.flat_events import FlatEvent
from guardrails.core.reporting.rollups import HOUR_MS
from guardrails.exports.meters import METERS, shares

__all__ = ["FOCUS_COLUMNS", "FOCUS_VERSION", "Charges", "FocusRow", "MeterRates"]

FOCUS_VERSION = "1.2"

MeterRates = Callable[[str | None, str, int], Sequence[int] | None]
"""Returns a rate per meter of a model of a provider at an instant, in any unit."""

FocusRow = Mapping[str, str | Decimal | datetime | None]

REQUESTS = "Requests"
"""The meter of a charge without any token."""

HOURS_OPEN = 2
"""Events come by time but for a few that a journal booked later. What is later than
this begins a row of its own, which adds up all the same."""

_TEXT, _NUMBER, _INSTANT = "text", "number", "instant"

FOCUS_COLUMNS: dict[str, str] = {
    "BilledCost": _NUMBER,
    "BillingAccountId": _TEXT,
    "BillingAccountName": _TEXT,
    "BillingAccountType": _TEXT,
    "BillingCurrency": _TEXT,
    "BillingPeriodEnd": _INSTANT,
    "BillingPeriodStart": _INSTANT,
    "ChargeCategory": _TEXT,
    "ChargeClass": _TEXT,
    "ChargeDescription": _TEXT,
    "ChargeFrequency": _TEXT,
    "ChargePeriodEnd": _INSTANT,
    "ChargePeriodStart": _INSTANT,
    "ConsumedQuantity": _NUMBER,
    "ConsumedUnit": _TEXT,
    "ContractedCost": _NUMBER,
    "ContractedUnitPrice": _NUMBER,
    "EffectiveCost": _NUMBER,
    "InvoiceId": _TEXT,
    "InvoiceIssuerName": _TEXT,
    "ListCost": _NUMBER,
    "ListUnitPrice": _NUMBER,
    "PricingCategory": _TEXT,
    "PricingQuantity": _NUMBER,
    "PricingUnit": _TEXT,
    "ProviderName": _TEXT,
    "PublisherName": _TEXT,
    "ResourceId": _TEXT,
    "ResourceName": _TEXT,
    "ResourceType": _TEXT,
    "ServiceCategory": _TEXT,
    "ServiceName": _TEXT,
    "ServiceSubcategory": _TEXT,
    "SkuId": _TEXT,
    "SkuMeter": _TEXT,
    "SkuPriceDetails": _TEXT,
    "SkuPriceId": _TEXT,
    "SubAccountId": _TEXT,
    "SubAccountName": _TEXT,
    "SubAccountType": _TEXT,
    "Tags": _TEXT,
    "x_Calls": _NUMBER,
    "x_CostSource": _TEXT,
    "x_CostStatus": _TEXT,
    "x_Model": _TEXT,
}
"""Columns, by the kind of their values: those of 1.2 by the alphabet, then ours."""


class _Group(NamedTuple):
    """What the events of one row, or of the meters of one model, have in common."""

    hour: int
    project_id: str
    customer_id: str | None
    user_id: str | None
    feature: str | None
    agent_path: str
    prompt_version: str | None
    tags: str
    provider: str | None
    model: str | None
    server: str | None
    tool: str | None
    price_status: str
    price_source: str | None


@dataclass(slots=True)
class _Sums:
    cost: int
    calls: int
    tokens: list[int]


class Charges:
    """Sums events into rows, hour by hour.

    Args:
        rates: Tells the rates by which a charge is divided.
    """

    def __init__(self, rates: MeterRates) -> None:
        self._rates = rates
        self._open: dict[int, dict[_Group, _Sums]] = {}
        self.unpriced_calls: int = 0
        """Calls of unknown cost, which no row holds."""

    def add(self, events: Sequence[FlatEvent]) -> Iterator[FocusRow]:
        """Adds events, and yields the rows of hours that are over."""
        for event in events:
            if event.cost_nano_usd is None:
                self.unpriced_calls += 1
            else:
                self._add(event, event.cost_nano_usd)
        over = max(self._open, default=0) - HOURS_OPEN
        for hour in sorted(hour for hour in self._open if hour < over):
            yield from self._rows(self._open.pop(hour))

    def rest(self) -> Iterator[FocusRow]:
        """Yields the rows of the hours that are left."""
        for hour in sorted(self._open):
            yield from self._rows(self._open.pop(hour))

    def _add(self, event: FlatEvent, cost: int) -> None:
        hour = event.time_ms // HOUR_MS
        group = _Group(
            hour=hour,
            project_id=event.project_id,
            customer_id=event.customer_id,
            user_id=event.user_id,
            feature=event.feature,
            agent_path=event.agent_path,
            prompt_version=event.prompt_version,
            tags=event.tags,
            provider=event.provider,
            model=event.model,
            server=event.server,
            tool=event.tool,
            price_status=event.price_status,
            price_source=event.price_source,
        )
        sums = self._open.setdefault(hour, {}).setdefault(
            group, _Sums(cost=0, calls=0, tokens=[0] * len(METERS))
        )
        sums.cost += cost
        sums.calls += 1
        read, write = event.cache_read_tokens or 0, event.cache_write_tokens or 0
        fresh = (event.input_tokens or 0) - read - write
        for i, count in enumerate((fresh, read, write, event.output_tokens or 0)):
            sums.tokens[i] += count

    def _rows(self, groups: Mapping[_Group, _Sums]) -> Iterator[FocusRow]:
        for group, sums in groups.items():
            if group.model is None:
                yield _row(group, "Calls", sums.cost, sums.calls, calls=sums.calls)
            elif not any(sums.tokens):
                yield _row(group, REQUESTS, sums.cost, sums.calls, calls=sums.calls)
            else:
                yield from self._of_model(group, group.model, sums)

    def _of_model(self, group: _Group, model: str, sums: _Sums) -> Iterator[FocusRow]:
        rates = self._rates(group.provider, model, group.hour * HOUR_MS)
        weights = [
            count * rate
            for count, rate in zip(sums.tokens, rates or [1] * 4, strict=True)
        ]
        if not any(weights):  # All of it has a rate of 0, and something was booked.
            weights = sums.tokens
        parts = shares(sums.cost, weights)
        for meter, count, part in zip(METERS, sums.tokens, parts, strict=True):
            if count:
                yield _row(group, meter, part, count, calls=sums.calls)


def _row(
    group: _Group, meter: str, cost_nano: int, quantity: int, *, calls: int
) -> FocusRow:
    """Returns one row."""
    cells = {
        **_NOTHING,
        **_period(group.hour),
        **_attribution(group),
        **_sku(group, meter),
        **_amounts(meter, Decimal(cost_nano).scaleb(-9), Decimal(quantity)),
        "x_Calls": Decimal(calls),
        "x_CostSource": group.price_source,
        "x_CostStatus": group.price_status,
        "x_Model": group.model,
    }
    return {name: cells[name] for name in FOCUS_COLUMNS}


_NOTHING: FocusRow = {"ChargeClass": None, "InvoiceId": None, "SkuPriceDetails": None}


def _period(hour: int) -> FocusRow:
    begins = datetime.fromtimestamp(hour * HOUR_MS // 1_000, tz=UTC)
    month = begins.replace(day=1, hour=0)
    return {
        "BillingPeriodEnd": month.replace(
            year=month.year + month.month // 12, month=month.month % 12 + 1
        ),
        "BillingPeriodStart": month,
        "ChargePeriodEnd": begins + timedelta(hours=1),
        "ChargePeriodStart": begins,
    }


def _attribution(group: _Group) -> FocusRow:
    agents: list[str] = json.loads(group.agent_path)
    customer = group.customer_id or "unattributed"
    return {
        "BillingAccountId": group.project_id,
        "BillingAccountName": group.project_id,
        "BillingAccountType": "Project",
        "ResourceId": "/".join(agents) or None,
        "ResourceName": agents[-1] if agents else None,
        "ResourceType": "Agent" if agents else None,
        "SubAccountId": customer,
        "SubAccountName": customer,
        "SubAccountType": "Customer",
        "Tags": _tags(group),
    }


def _sku(group: _Group, meter: str) -> FocusRow:
    is_model = group.model is not None
    seller = (group.provider if is_model else group.server) or "unknown"
    item = f"{seller}/{group.model or group.tool or 'unknown'}"
    return {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{meter} of {item}",
        "ChargeFrequency": "Usage-Based",
        "InvoiceIssuerName": seller,
        "PricingCategory": "Standard",
        "ProviderName": seller,
        "PublisherName": seller,
        "ServiceCategory": "AI and Machine Learning" if is_model else "Integration",
        "ServiceName": seller if is_model else item,
        "ServiceSubcategory": "Generative AI" if is_model else "Other (Integration)",
        "SkuId": f"{item}/{meter}",
        "SkuMeter": meter,
        "SkuPriceId": f"{item}/{meter}@{group.price_source or 'unknown'}",
    }


def _amounts(meter: str, cost: Decimal, quantity: Decimal) -> FocusRow:
    """Prices per unit are what was paid: cost by quantity."""
    is_tokens = meter in METERS
    priced = quantity.scaleb(-6) if is_tokens else quantity
    costs = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
    return {
        **dict.fromkeys(costs, cost),
        "BillingCurrency": "USD",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Tokens" if is_tokens else "Calls",
        "ContractedUnitPrice": cost / priced,
        "ListUnitPrice": cost / priced,
        "PricingQuantity": priced,
        "PricingUnit": "1000000 Tokens" if is_tokens else "Calls",
    }


def _tags(group: _Group) -> str:
    """A user's tags keep their names; ours have a prefix, so that none collide."""
    own = {
        "guardrails/feature": group.feature,
        "guardrails/prompt_version": group.prompt_version,
        "guardrails/user_id": group.user_id,
    }
    known = {key: value for key, value in own.items() if value is not None}
    return json.dumps({**json.loads(group.tags), **known}, ensure_ascii=False)
