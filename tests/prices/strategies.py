"""Random usages, as providers report them."""

from hypothesis import strategies as st

from guardrails.core.usage import TokenUsage


@st.composite
def usages(
    draw: st.DrawFn,
    *,
    input_max: int = 2_000_000,
    output_max: int = 200_000,
    is_text_only: bool = False,
    tiers: tuple[str | None, ...] = (None,),
) -> TokenUsage:
    """Draws usage whose parts lie within its totals."""

    def part(of: int) -> int:
        return draw(st.one_of(st.just(0), st.integers(0, of)))

    total_input = draw(st.integers(0, input_max))
    total_output = draw(st.integers(0, output_max))
    read = part(total_input)
    write = part(total_input - read)
    return TokenUsage(
        input_tokens=total_input,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=part(write),
        # genai-prices cannot price audio that was written to a cache.
        input_audio_tokens=0 if is_text_only else part(total_input - write),
        output_tokens=total_output,
        reasoning_tokens=part(total_output),
        output_audio_tokens=0 if is_text_only else part(total_output),
        web_searches=0 if is_text_only else part(50),
        service_tier=draw(st.sampled_from(tiers)),
    )
