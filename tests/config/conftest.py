"""Fixtures: a configuration from text, without the process's environment."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from guardrails.config import Configuration, load_configuration

Load = Callable[..., Configuration]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads `guardrails.yaml` with the given text; keywords are quick arguments."""

    def load_text(
        text: str | None = None,
        *,
        environ: dict[str, str] | None = None,
        **overrides: object,
    ) -> Configuration:
        if text is not None:
            (tmp_path / "guardrails.yaml").write_text(dedent(text), encoding="utf-8")
        config: dict[str, object] | None = {} if text is None else None
        return load_configuration(
            config, environ=environ or {}, cwd=tmp_path, overrides=overrides
        )

    return load_text
