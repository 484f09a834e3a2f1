"""An empty directory to work in: no configuration file, and no ledger yet."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Starts each test where nobody has used guardrails before."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
