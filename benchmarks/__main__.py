"""Runs every benchmark and prints one table: `make bench`.

Each figure is a median over interleaved rounds, beside the baseline that was
measured in the same rounds, because these machines are noisy: only the ratio
means something.
"""

from itertools import chain

from benchmarks.agent import measure_agent
from benchmarks.alerts import measure_alerts
from benchmarks.export import measure_export
from benchmarks.imports import measure_imports
from benchmarks.ledger import measure_ledger
from benchmarks.mcp_proxy import measure_mcp_proxy
from benchmarks.redis_ledger import measure_redis
from benchmarks.redis_scale import measure_redis_scale
from benchmarks.reports import measure_reports


def main() -> None:
    """Prints the table."""
    print(f"{'what':<44}{'measured':>12}{'baseline':>12}{'ratio':>8}  target")
    lines = chain(
        measure_ledger(),
        measure_redis(),
        measure_redis_scale(),
        measure_export(),
        measure_reports(),
        measure_agent(),
        measure_alerts(),
        measure_mcp_proxy(),
        measure_imports(),
    )
    for line in lines:  # Each as soon as it is known: a million sessions take a while.
        print(line, flush=True)


if __name__ == "__main__":
    main()
