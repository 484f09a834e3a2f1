"""How long `import guardrails` takes, in a fresh process."""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measuring import line

__all__ = ["measure_imports"]

RUNS = 9
NO_BYTE_CODE = "PYTHONDONTWRITEBYTECODE"


def measure_imports() -> Iterator[str]:
    """Measures a process that imports guardrails against one that does not."""
    bare: list[float] = []
    imported: list[float] = []
    _milliseconds("import guardrails")  # Writes the byte code, as an install does.
    for _ in range(RUNS):
        bare.append(_milliseconds("pass"))
        imported.append(_milliseconds("import guardrails"))
    base, full = statistics.median(bare), statistics.median(imported)
    yield line(
        "import guardrails, in a fresh process",
        f"{full - base:.0f} ms",
        f"{base:.0f} ms",
        None,
        "<= 150 ms",
    )


def _milliseconds(code: str) -> float:
    timed = (
        f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    )
    environment = {k: v for k, v in os.environ.items() if k != NO_BYTE_CODE}
    out = subprocess.run(
        [sys.executable, "-c", timed],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(out.stdout) * 1000
