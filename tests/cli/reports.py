"""Reports that the tests of this folder show."""

from guardrails.core.alerting.anomalies import Anomaly, AnomalyKind, Severity, Unit
from guardrails.core.reporting.rollups import Spend
from guardrails.reports import CostReport, SessionRow, Span, Sparse, report_by

SPAN = Span(hours=24, until_ms=1_764_001_800_000)
"""Half past the hour, so that the report begins at 16:00 of the day before."""


OUTLIER = Anomaly(
    kind=AnomalyKind.SESSION_OUTLIER,
    dimension="session_id",
    name="sess_m3n4o5p6",
    about="maps/geocode",
    since_ms=SPAN.since_ms,
    began_ms=SPAN.since_ms,
    unit=Unit.COST,
    measured=46_990_000_000,
    expected=120_000_000,
    ratio=391.2,
    n=812,
    calls=8_930,
    cost_nano_usd=46_990_000_000,
    excess_nano_usd=46_870_000_000,
    severity=Severity.MEDIUM,
)

SPARSE = Sparse(
    kind=AnomalyKind.CUSTOMER_SPIKE,
    dimension="customer_id",
    name="globex",
    have=3,
    need=5,
)


def session_report() -> CostReport:
    """Four sessions that ended in four ways; more than 800 are left out."""
    spends = [
        ("sess_m3n4o5p6", "support", "acme", "loop_detected", 2_340, 44_650, 8_977),
        ("sess_q7r8s9t0", "analyst", "globex", "budget_exceeded", 1_930, 1_060, 41),
        ("sess_i9j0k1l2", "analyst", "globex", "completed", 162, 45, 12),
        ("sess_e5f6g7h8", "support", None, "active", 94, 15, 7),
    ]
    rows = [
        SessionRow(
            name=name,
            agent=agent,
            customer_id=customer,
            end=end,
            reason="max_cost_usd" if end == "budget_exceeded" else None,
            share=(models + tools) / 102_000,
            spend=Spend(
                name=name,
                model_nano_usd=models * 1_000_000,
                tool_nano_usd=tools * 1_000_000,
                model_calls=steps // 2,
                tool_calls=steps - steps // 2,
                input_tokens=steps * 1_000,
                output_tokens=steps * 50,
            ),
        )
        for name, agent, customer, end, models, tools, steps in spends
    ]
    total = Spend(
        name=None,
        model_nano_usd=34_200 * 1_000_000,
        tool_nano_usd=67_800 * 1_000_000,
        model_calls=5_000,
        tool_calls=7_398,
        input_tokens=12_400_000,
        output_tokens=610_000,
    )
    return CostReport(
        project_id="default",
        by="session_id",
        span=SPAN,
        rows=rows,
        names=847,
        total=total,
        stopped=9,
    )


def customer_report() -> CostReport:
    """Three names and what nobody is charged with."""
    amounts = {"acme": (12_040, 46_270), "globex": (17_900, 19_440), None: (1_150, 0)}
    spends = [
        Spend(
            name=name,
            model_nano_usd=models * 1_000_000,
            tool_nano_usd=tools * 1_000_000,
            model_calls=300,
            tool_calls=40 if tools else 0,
        )
        for name, (models, tools) in amounts.items()
    ]
    return report_by(spends, project_id="default", by="customer_id", span=SPAN, limit=0)


def report_of(*rows: Spend, by: str = "agent", limit: int = 0) -> CostReport:
    """A report of these spends."""
    return report_by(rows, project_id="default", by=by, span=SPAN, limit=limit)
