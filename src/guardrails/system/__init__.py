"""The system: clocks, random ids, threads, forks and signals. Nothing of the domain."""
