"""Testing: fakes and suites for those who build on guardrails. Public."""

import importlib
from typing import TYPE_CHECKING, Any

from guardrails.testing.clock import FakeClock

if TYPE_CHECKING:
    from guardrails.testing.conformance import StoreConformance

    # A model of a framework, which nothing here imports: its type is not known.
    ScriptedChatModel: Any

__all__ = ["FakeClock", "ScriptedChatModel", "StoreConformance"]


def __getattr__(name: str) -> object:
    # Late: the suite needs pytest, the model needs LangChain.
    if name == "ScriptedChatModel":
        return importlib.import_module("guardrails_langchain.testing").ScriptedChatModel
    if name == "StoreConformance":
        return importlib.import_module(
            "guardrails.testing.conformance"
        ).StoreConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
