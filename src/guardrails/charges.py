"""Charges: what a call may cost at most before it, and did cost after it."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from guardrails.core.accounts import Charging
from guardrails.core.admission import Reservation
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.calls import CallStatus, ModelCall, Outcome, ToolCall
from guardrails.core.estimates import output_tokens_max, unseen_tokens_max
from guardrails.core.events import Event
from guardrails.core.layers import TokenRates
from guardrails.core.money import LIMIT_NANO_USD_MAX
from guardrails.core.policy import OnUnpriced, Policy
from guardrails.core.usage import (
    TOKENS_MAX,
    UNPRICED,
    Charge,
    PriceStatus,
    TokenUsage,
)
from guardrails.errors import UnpricedModelError
from guardrails.largest import Largest
from guardrails.ports import ContextBook, PriceBook, RateBook
from guardrails.system.threads import new_lock

__all__ = ["Charges", "ToolOrigin", "ToolPrice"]

OFFERED_MAX = 4_096
"""Tools whose servers are remembered; a large server offers a hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOrigin:
    """Where a tool comes from that a framework calls by a name of its own."""

    tool: str
    """As its server names it."""
    server: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPrice:
    """What `@guard.tool` declares about a function."""

    server: str | None
    cost_nano_usd: int | None


class Charges:
    """Prices the calls of one guard by its policy. Thread safe.

    Args:
        policy: The rules for tools and for models without a price.
        prices: What models cost.
        contain: Takes a failure of the price book: counts it and goes on.
        missing: Told of a call, before it is made, whose price is not known.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        prices: PriceBook,
        contain: Callable[[BaseException, str], None],
        missing: Callable[[Unpriced, Attribution, int], None],
    ) -> None:
        self._policy = policy
        self._prices = prices
        self._contain = contain
        self._missing = missing
        self.tools: dict[str, ToolPrice] = {}
        """Declared tools by name."""
        self._offered: OrderedDict[str, ToolOrigin] = OrderedDict()
        self._largest = Largest()
        self._lock = new_lock()

    def adopt(self, policy: Policy, prices: PriceBook | None) -> None:
        """Goes on with another policy, and with other prices if there are any."""
        self._policy = policy
        if prices is not None:
            self._prices = prices
            self.__dict__.pop("_rates", None)

    @cached_property
    def _rates(self) -> RateBook | None:
        """The price book, if it knows rates. Asked late: a guard may be off."""
        return self._prices if isinstance(self._prices, RateBook) else None

    def output_tokens(self, call: ModelCall, agent: str | None) -> int:
        """Bounds the output of a call that an agent is about to make."""
        return output_tokens_max(
            requested=call.output_tokens_max,
            largest_seen=self._largest.output(call, agent),
            is_strict=self._policy.is_estimate_strict or call.is_output_bound,
            expected=call.output_tokens_expected,
        )

    def unseen_tokens(
        self,
        call: ModelCall,
        agent: str | None,
        *,
        parts: int,
        seen_tokens: int,
        now_ms: int,
    ) -> int:
        """Bounds what of a prompt only the provider sees: see `unseen_tokens_max`."""
        is_strict = self._policy.is_estimate_strict
        return unseen_tokens_max(
            parts=parts,
            largest_part=self._largest.part(call, agent),
            is_continued=call.prompt is not None and call.prompt.is_continued,
            largest_call=self._largest.call(call, agent),
            seen_tokens=seen_tokens,
            context_tokens=self._context_tokens(call, now_ms) if is_strict else None,
        )

    def model_bound(
        self, call: ModelCall, output_tokens: int, charging: Charging, now_ms: int
    ) -> Charge:
        """Bounds the cost of a model call.

        Raises:
            UnpricedModelError: If its price is not known and the policy refuses
                such calls.
        """
        charge = self._bound(call, output_tokens, now_ms)
        if charge.cost_nano_usd is not None:
            return charge
        charge = self._worst_case(call, call.input_tokens_max, output_tokens)
        if charge.cost_nano_usd is not None:
            self._tell_missing(call, OnUnpriced.WORST_CASE, charging, now_ms)
            return charge
        is_allowed = self._policy.on_unpriced is OnUnpriced.ALLOW
        if charging.limits_cost and charging.is_enforced and not is_allowed:
            self._tell_missing(call, OnUnpriced.REFUSE, charging, now_ms)
            raise UnpricedModelError(
                f"the price of model {call.model!r} (provider {call.provider!r}) is "
                "not known and a cost limit applies, so the call was not made. Add "
                f"models: {{{call.model!r}: {{input_per_1m_usd: ..., "
                "output_per_1m_usd: ...}} to guardrails.yaml, or set on_unpriced to "
                "worst_case or allow."
            )
        return charge

    def _bound(self, call: ModelCall, output_tokens: int, now_ms: int) -> Charge:
        """Bounds a call by the standard tier and as text, or as what is dearer."""
        bound = self._asked(
            lambda: self._prices.bound(
                provider=call.provider,
                model=call.model,
                input_tokens=call.input_tokens_max,
                output_tokens=output_tokens,
                now_ms=now_ms,
            )
        )
        sound = call.sound_tokens_max
        is_plain = call.service_tier is None and not sound
        if is_plain or bound.cost_nano_usd is None:
            return bound
        tokens = min(call.input_tokens_max, TOKENS_MAX - output_tokens)
        usages = [
            TokenUsage(
                input_tokens=tokens,
                cache_write_tokens=written,
                cache_write_1h_tokens=written,
                input_audio_tokens=min(sound, tokens),
                output_tokens=output_tokens,
                service_tier=call.service_tier,
            )
            for written in (0, tokens)
        ]
        asked = [self._price(call, call.model, usage, now_ms) for usage in usages]
        return max(bound, *asked, key=lambda charge: charge.cost_nano_usd or 0)

    def _tell_missing(
        self, call: ModelCall, calls: OnUnpriced, charging: Charging, now_ms: int
    ) -> None:
        unpriced = Unpriced(model=call.model, provider=call.provider, calls=calls)
        self._missing(unpriced, charging.attribution, now_ms)

    def origin(self, name: str) -> ToolOrigin:
        """Returns which tool a framework means: a declared one, else a server's."""
        declared = self.tools.get(name)
        if declared is not None:
            return ToolOrigin(tool=name, server=declared.server)
        return self._offered.get(name) or ToolOrigin(tool=name)

    def offer(self, name: str, origin: ToolOrigin) -> None:
        """Remembers that a server offers a tool, which frameworks call by that name."""
        if self._offered.get(name) == origin:
            return
        with self._lock:
            self._offered[name] = origin
            self._offered.move_to_end(name)
            if len(self._offered) > OFFERED_MAX:
                self._offered.popitem(last=False)

    def tool_charge(self, call: ToolCall) -> Charge:
        """Prices a tool call: the policy's price, the caller's, or the declared one."""
        rule = self._policy.tool_rule(call.name)
        declared = self.tools.get(call.tool)
        if declared is not None and call.server not in (None, declared.server):
            declared = None  # Another server's tool of the same name.
        cost = None if rule is None else rule.cost_nano_usd
        if cost is None:
            cost = call.cost_nano_usd
        if cost is None and declared is not None:
            cost = declared.cost_nano_usd
        if cost is None:
            return UNPRICED
        return Charge(cost_nano_usd=cost, status=PriceStatus.PRICED, source="config")

    def settled_charge(
        self, reservation: Reservation, outcome: Outcome, now_ms: int
    ) -> tuple[TokenUsage | None, Charge]:
        """Returns the usage and the cost to book."""
        call = reservation.call
        usage = outcome.usage
        if isinstance(call, ModelCall):
            if outcome.is_unsent:
                usage = TokenUsage()
            elif usage is None:
                usage = self._largest.bounded(reservation, outcome)
            else:
                agent = reservation.op.charging.attribution.agent
                self._largest.learn(call, agent, usage)
                usage = self._largest.completed(usage, reservation, outcome)
        if outcome.cost_nano_usd is not None:
            return usage, Charge(
                cost_nano_usd=outcome.cost_nano_usd,
                status=PriceStatus.REPORTED,
                source="provider",
            )
        if outcome.is_unsent:
            return usage, Charge(
                cost_nano_usd=0, status=PriceStatus.PRICED, source="not billed"
            )
        if usage is None or isinstance(call, ToolCall):
            return None, _tool_charge(reservation.charge, outcome)
        charge = self._model_charge(call, outcome, usage, now_ms)
        if (
            charge.cost_nano_usd is None
            and reservation.charge.cost_nano_usd is not None
        ):
            # What was held is the best that is known; unknown is not 0.
            return usage, replace(reservation.charge, status=PriceStatus.ESTIMATED)
        return usage, charge

    def token_rates(self, call: ModelCall, event: Event) -> TokenRates | None:
        """Returns what a token of a settled call cost, as far as it is known."""
        usage = event.usage
        if self._rates is None or usage is None:
            return None
        for model in (event.model, call.model):
            if model is not None:
                rates = self._rates.token_rates(
                    provider=call.provider,
                    model=model,
                    usage=usage,
                    now_ms=event.time_ms,
                )
                if rates is not None:
                    return rates
        return None

    def _model_charge(
        self, call: ModelCall, outcome: Outcome, usage: TokenUsage, now_ms: int
    ) -> Charge:
        charge = UNPRICED
        # The model that answered, often a dated snapshot, beats the alias.
        for model in (outcome.model, call.model):
            if model is not None and charge.cost_nano_usd is None:
                charge = self._dearest(call, model, usage, outcome, now_ms)
        if charge.cost_nano_usd is None:
            charge = self._worst_case(call, usage.input_tokens, usage.output_tokens)
        is_partly_bounded = outcome.is_input_unknown or outcome.is_output_unknown
        is_bounded = outcome.usage is None or is_partly_bounded
        if is_bounded and charge.cost_nano_usd is not None:
            return replace(charge, status=PriceStatus.ESTIMATED)
        if outcome.has_fees and charge.status is PriceStatus.PRICED:
            return replace(charge, status=PriceStatus.PARTIAL)
        return charge

    def _dearest(
        self,
        call: ModelCall,
        model: str,
        usage: TokenUsage,
        outcome: Outcome,
        now_ms: int,
    ) -> Charge:
        """Prices a call as the dearest that its report may mean.

        LangChain keeps neither sound nor images of what Gemini reports, nor the speed
        of Anthropic's streams; what is cut off says nothing of its tier.
        """
        charge = self._price(call, model, usage, now_ms)
        if charge.cost_nano_usd is None:
            return charge
        if call.service_tier is not None and not outcome.names_tier:
            asked = replace(usage, service_tier=call.service_tier)
            charge = _dearer(charge, self._price(call, model, asked, now_ms))
        sound = call.sound_tokens_max
        if sound and not usage.input_audio_tokens:
            heard = replace(usage, input_audio_tokens=min(sound, usage.input_tokens))
            charge = _dearer(charge, self._price(call, model, heard, now_ms))
        if outcome.has_drawn:
            charge = _dearer(charge, self._as_drawn(call, model, usage, now_ms))
        return charge

    def _as_drawn(
        self, call: ModelCall, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        """Prices all that a model has written, but not thought, as images."""
        plain = ModelCall(
            model=model, provider=call.provider, input_tokens_max=usage.input_tokens
        )
        drawn = usage.output_tokens - usage.reasoning_tokens
        rest = replace(usage, output_tokens=usage.reasoning_tokens)
        text = self._price(call, model, rest, now_ms)
        before = self._bound(plain, 0, now_ms).cost_nano_usd
        after = self._bound(plain, drawn, now_ms).cost_nano_usd
        if text.cost_nano_usd is None or before is None or after is None:
            return UNPRICED
        return replace(text, cost_nano_usd=text.cost_nano_usd + after - before)

    def _price(
        self, call: ModelCall, model: str, usage: TokenUsage, now_ms: int
    ) -> Charge:
        return self._asked(
            lambda: self._prices.price(
                provider=call.provider, model=model, usage=usage, now_ms=now_ms
            )
        )

    def _worst_case(
        self, call: ModelCall, input_tokens: int, output_tokens: int
    ) -> Charge:
        """Prices a call of unknown price, if the policy wants that."""
        if self._policy.on_unpriced is not OnUnpriced.WORST_CASE:
            return UNPRICED
        return self._asked(
            lambda: self._prices.worst_case(
                provider=call.provider,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
            )
        )

    def _context_tokens(self, call: ModelCall, now_ms: int) -> int | None:
        """Returns the most that a model reads, if the price book knows it."""
        if not isinstance(self._prices, ContextBook):
            return None
        try:
            return self._prices.context_tokens(
                provider=call.provider, model=call.model, now_ms=now_ms
            )
        except Exception as error:
            self._contain(error, "asking how much a model reads")
            return None

    def _asked(self, ask: Callable[[], Charge]) -> Charge:
        """Asks the price book; one that fails knows no price.

        The policy for unknown prices decides then: a failure is no way past it.
        """
        try:
            charge = ask()
            cost = charge.cost_nano_usd
            if cost is not None and (
                type(cost) is not int or not 0 <= cost <= LIMIT_NANO_USD_MAX
            ):
                raise ValueError("the cost of a call is no amount of nano-USD")
        except Exception as error:
            self._contain(error, "pricing a call")
            return UNPRICED
        else:
            return charge


def _dearer(charge: Charge, other: Charge) -> Charge:
    """Returns another reading of a report, as an estimate, if it costs more."""
    if (other.cost_nano_usd or 0) <= (charge.cost_nano_usd or 0):
        return charge
    return replace(other, status=PriceStatus.ESTIMATED)


def _tool_charge(charge: Charge, outcome: Outcome) -> Charge:
    """Returns the cost of a tool call whose cost was not reported."""
    is_known = charge.cost_nano_usd is not None
    if outcome.status is CallStatus.BROKEN_OFF and is_known:
        return replace(charge, status=PriceStatus.ESTIMATED)  # It may not have run.
    return charge
