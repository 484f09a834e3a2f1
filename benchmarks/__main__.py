"""Runs every benchmark and prints one table: `make bench`.

Each figure is a median over interleaved rounds, beside the baseline that was
measured in the same rounds, because these machines are noisy: only the ratio
means something.
"""

from benchmarks.agent import measure_agent
from benchmarks.imports import measure_imports
from benchmarks.ledger import measure_ledger


def main() -> None:
    """Prints the table."""
    print(f"{'what':<44}{'measured':>12}{'baseline':>12}{'ratio':>8}  target")
    for line in (*measure_ledger(), *measure_agent(), *measure_imports()):
        print(line)


if __name__ == "__main__":
    main()
