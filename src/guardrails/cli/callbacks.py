"""Callbacks: whether a limit stops a framework's calls, by making some for real."""

from guardrails.adapters import installed_adapters
from guardrails.stores.diagnosis import Check, Status

__all__ = ["callback_check"]


def callback_check() -> Check:
    """Lets each installed framework run a fake model past a limit."""
    texts: list[str] = []
    missed: list[str] = []
    for framework, adapter in installed_adapters().items():
        name = framework.partition("_")[0]  # As its distribution and extra are named.
        if adapter is None:
            texts.append(f"skipped ({name} is not installed)")
            continue
        try:
            ways = adapter.load().self_test()
        except Exception as error:
            missed.append(f"{name}: {type(error).__name__}")
            continue
        stopped = [way for way, is_stopped in ways.items() if is_stopped]
        missed += [f"{name}: {way}" for way in ways if way not in stopped]
        texts.append(f"{name}: a limit stops {' and '.join(stopped)}")
    if missed:
        return Check(
            name="callbacks",
            status=Status.FAIL,
            text=f"a limit did not stop {', '.join(missed)}",
            commands=('pip install --upgrade "guardrails-runtime[all]"',),
        )
    return Check(name="callbacks", status=Status.OK, text="; ".join(texts))
