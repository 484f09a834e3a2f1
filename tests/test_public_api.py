"""The public surface: few names, all of them explained, and an import that is light."""

import inspect
import json
import pickle
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import guardrails
from guardrails import GuardrailsError
from guardrails.adapters import GROUP, OURS

NAMES_MAX = 25

HEAVY = (
    "genai_prices",
    "httpcore2",
    "httpx",
    "httpx2",
    "langchain",
    "langchain_core",
    "langgraph",
    "mcp",
    "openai",
    "pydantic",
    "redis",
    "rich",
    "slack_sdk",
    "sqlite3",
    "standardwebhooks",
    "tenacity",
    "typer",
)
"""What may be loaded when it is needed, and not before."""

ERRORS = sorted(
    name
    for name in guardrails.__all__
    if inspect.isclass(getattr(guardrails, name))
    and issubclass(getattr(guardrails, name), BaseException)
)


def loaded_by(code: str, *, folder: Path | None = None, **environ: str) -> set[str]:
    """Runs code in a fresh interpreter and returns the modules that it loads."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environ or None,
    )
    assert not ended.stderr
    return set(json.loads(ended.stdout))


# --- names ------------------------------------------------------------------


def test_the_public_names_are_few_and_in_order() -> None:
    assert len(guardrails.__all__) <= NAMES_MAX
    assert list(guardrails.__all__) == sorted(set(guardrails.__all__))


def test_the_design_s_names_are_there() -> None:
    promised = {
        "Guard",
        "Session",
        "BudgetExceeded",
        "LoopDetected",
        "SessionStopped",
        "StoreUnavailable",
        "ConfigurationError",
        "UnpricedModelError",
    }

    assert promised <= set(guardrails.__all__)


@pytest.mark.parametrize("name", guardrails.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    public = getattr(guardrails, name)
    text = public.__doc__ or ""

    assert text.strip()
    assert not text.startswith(f"{name}("), "a dataclass's signature explains nothing"
    assert text.strip().splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", ["Guard", "GuardedCall", "Session"])
def test_every_public_method_is_explained(name: str) -> None:
    members = vars(getattr(guardrails, name)).items()
    silent = [
        member
        for member, value in members
        if not member.startswith("_")
        and (callable(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]

    assert not silent


def test_a_name_that_does_not_exist_says_so() -> None:
    with pytest.raises(AttributeError, match="'guardrails' has no attribute 'Gaurd'"):
        guardrails.Gaurd  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


def test_the_version_is_that_of_the_distribution() -> None:
    assert guardrails.__version__ == version("guardrails-runtime")


# --- errors -----------------------------------------------------------------


def test_errors_are_public() -> None:
    assert len(ERRORS) >= 8


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_one_of_ours_and_travels_between_processes(name: str) -> None:
    kind = getattr(guardrails, name)
    error = kind("what was wrong")

    arrived = pickle.loads(pickle.dumps(error))

    assert issubclass(kind, GuardrailsError)
    assert type(arrived) is kind
    assert str(arrived) == "what was wrong"


def test_stops_are_told_from_refusals_and_faults() -> None:
    stops = {name for name in ERRORS if issubclass(kind(name), kind("SessionStopped"))}

    assert stops == {"BudgetExceeded", "LoopDetected", "SessionStopped"}
    assert issubclass(kind("UnpricedModelError"), kind("CallRefused"))
    assert issubclass(kind("ConfigurationError"), ValueError)


def kind(name: str) -> type[BaseException]:
    return getattr(guardrails, name)


# --- the import -------------------------------------------------------------


def test_importing_guardrails_loads_nothing_heavy() -> None:
    loaded = loaded_by("from guardrails import Guard")

    assert "guardrails.guard" in loaded
    assert not loaded & set(HEAVY)
    assert not {module for module in loaded if module.startswith("guardrails_")}


def test_a_guard_loads_no_framework_that_the_program_does_not_use() -> None:
    loaded = loaded_by(
        "from guardrails import Guard\n"
        "guard = Guard({}, store='memory://', max_steps=5)\n"
        "with guard.session('a'), guard.call(tool='t', cost_usd='0.01'):\n"
        "    pass"
    )

    assert not loaded & set(HEAVY)
    assert not {module for module in loaded if module.startswith("guardrails_")}


def test_importing_guardrails_reads_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "guardrails.yaml").write_text("max_cost: [", encoding="utf-8")

    loaded_by("import guardrails", folder=tmp_path, GUARDRAILS_MAX_COST_USD="nonsense")

    assert [path.name for path in tmp_path.iterdir()] == ["guardrails.yaml"]


def test_the_adapter_comes_with_its_framework_in_either_order() -> None:
    framework = "import langchain_core.callbacks\n"

    assert "guardrails_langchain" in loaded_by(framework + GUARD)
    assert "guardrails_langchain" in loaded_by(f"{GUARD}\n{framework}")


GUARD = "import guardrails; guardrails.Guard({}, store='memory://')"

FROZEN = """
import sys
from importlib.machinery import PathFinder

class Frozen:
    places = sys.path.copy()

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, path or self.places, target)

sys.path.clear()
sys.meta_path[sys.meta_path.index(PathFinder)] = Frozen()
"""
"""As in a program of PyInstaller: modules are found by its own finder, and no
distribution is."""


@pytest.mark.parametrize("is_first", [True, False])
def test_the_adapter_comes_where_no_distribution_is_known(*, is_first: bool) -> None:
    parts = ["import langchain_core.callbacks", GUARD]
    code = "\n".join(parts if is_first else reversed(parts))

    assert "guardrails_langchain" in loaded_by(FROZEN + code)


def test_the_adapters_that_are_known_anyway_are_the_entry_points() -> None:
    found = {entry.name: entry.value for entry in entry_points(group=GROUP)}

    assert found == OURS


def test_a_version_that_nobody_knows_is_no_error() -> None:
    loaded_by(
        f"{FROZEN}\nimport guardrails\nassert guardrails.__version__ == 'unknown'"
    )
