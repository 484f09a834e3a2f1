"""What LangChain itself warns of, and a session that nothing else has spent in."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # langchain-core (1.8.3) builds the coroutines of all asynchronous handlers
    # before it runs the inline ones, so that one which raises, such as ours, leaves
    # the others behind, among them the handler of astream_events. It can go when
    # AsyncCallbackManager.on_chat_model_start no longer collects coroutines first.
    config.addinivalue_line(
        "filterwarnings", "ignore:coroutine 'ahandle_event' was never awaited"
    )
