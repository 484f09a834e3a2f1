"""`guardrails schema`: the format of `guardrails.yaml`, for editors."""

import json

import typer

from guardrails.config.json_schema import json_schema

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON schema of guardrails.yaml, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))
