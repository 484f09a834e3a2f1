"""Loading: finds the sources of a configuration and lays them over one another.

The stronger source wins, key by key: code, then the environment, then the
file, then the defaults. Quick limits apply to every session, so they also
replace the limits that a file gives to single agents.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import cast

from guardrails.alerts import AlertSettings
from guardrails.config.alerts import alert_settings
from guardrails.config.environment import (
    CONFIG_VARIABLE,
    misspelt_limits,
    quick_variables,
)
from guardrails.config.nodes import Entry, Keys, Scalar, keys_of
from guardrails.config.problems import Problems, shown
from guardrails.config.retention import Retention
from guardrails.config.schema import read_file, read_quick
from guardrails.config.section import Context, Section
from guardrails.config.settings import FileSettings, Settings
from guardrails.config.yaml_nodes import read_yaml
from guardrails.core.loops import LoopAction
from guardrails.core.policy import (
    SESSION_BUDGET,
    Mode,
    OnStoreError,
    OnUnpriced,
    Policy,
)
from guardrails.prices import ModelPrice

__all__ = ["FILE_NAME", "Configuration", "load_configuration"]

FILE_NAME = "guardrails.yaml"

DEFAULT_PROJECT_ID = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that a guard is built from."""

    policy: Policy
    store: str | None = field(repr=False)
    """The URL of the store; `None` is the default. May contain a password."""
    project_id: str
    model_prices: Mapping[str, ModelPrice]
    """The user's own rates by model."""
    aliases: Mapping[str, str]
    """What to look a model up as; a target is never an alias itself."""
    alerts: AlertSettings
    """Where alerts go."""
    retention: Retention
    """How long `guardrails prune` keeps what was recorded."""
    sources: tuple[str, ...]
    """Where settings came from, weakest first: `guardrails.yaml`,
    `GUARDRAILS_STORE`, `Guard(max_steps)`. Empty when everything is a default."""
    origins: Mapping[str, str]
    """Where each written setting came from: `guardrails.yaml:7`, `GUARDRAILS_STORE`
    or `Guard(max_steps)`. By the path of its key in a file; quick limits, which
    replace those of every session, by their bare name."""
    path: Path | None = None
    """The file that was read, if one was; absolute."""


def load_configuration(
    config: str | PathLike[str] | Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str],
    cwd: Path | None,
    overrides: Mapping[str, object],
) -> Configuration:
    """Builds the configuration from all its sources.

    Args:
        config: A file, or its content as a dict, whose numbers may be of any
            exact type. `None` takes the file that `GUARDRAILS_CONFIG` names,
            else the nearest `guardrails.yaml` upwards from `cwd`, else none. An
            empty dict reads no file.
        environ: The process's environment.
        cwd: What relative paths start from; `None` is the process's own.
        overrides: The quick arguments of `Guard`. `None` stands for one that
            was not given.

    Raises:
        ConfigurationError: If anything is wrong; the message has a line for
            every defect, with its place in the file, its key, value and fix.
    """
    problems = Problems()
    code, arguments = _read_arguments(overrides, problems)
    outside, variables = _read_variables(environ, problems)
    context = Context(problems=problems, variables=environ)
    file, files, path = _read_config(config, context, environ=environ, cwd=cwd)
    alerts, alert_variables = alert_settings(
        file.alerts, environ=environ, problems=problems
    )
    problems.raise_if_any()
    quick = code.over(outside)
    overruled = set(arguments)
    return Configuration(
        policy=_policy(file, quick),
        store=quick.store or file.store,
        project_id=quick.project_id or file.project_id or DEFAULT_PROJECT_ID,
        model_prices=file.model_prices,
        aliases=file.aliases,
        alerts=alerts,
        retention=file.retention,
        sources=(
            *files,
            *(name for key, name in variables.items() if key not in overruled),
            *alert_variables.values(),
            *(f"Guard({key})" for key in arguments),
        ),
        origins={
            **context.origins,
            **variables,
            **alert_variables,
            **{key: f"Guard({key})" for key in arguments},
        },
        path=path,
    )


def _policy(file: FileSettings, quick: Settings) -> Policy:
    settings = quick.over(file)
    policy = Policy(
        mode=settings.mode or Mode.ENFORCE,
        session=settings.session.budget(SESSION_BUDGET),
        agents=tuple(
            (pattern, quick.session.over(own.over(file.session)).budget(SESSION_BUDGET))
            for pattern, own in file.agents
        ),
        budgets=file.budgets,
        tools=file.tools,
        on_unpriced=settings.on_unpriced or OnUnpriced.REFUSE,
        on_store_error=settings.on_store_error or OnStoreError.LOCAL,
        wait_ms_max=file.wait_ms_max,
        is_estimate_strict=file.is_estimate_strict,
    )
    # Whoever limits anything wants runs to end; whoever does not, only to know.
    action = LoopAction.WARN if policy.limits_nothing else LoopAction.STOP
    return replace(policy, loop=replace(file.loop, action=file.loop_action or action))


def _read_arguments(
    overrides: Mapping[str, object], problems: Problems
) -> tuple[Settings, tuple[str, ...]]:
    """Returns the quick arguments, and the names of those that are given."""
    given: dict[object, object] = {
        key: value for key, value in overrides.items() if value is not None
    }
    section = Section(_dict_keys(given, problems), _verbatim(problems))
    settings = read_quick(section)
    section.close()
    return settings, tuple(str(key) for key in given)


def _read_variables(
    environ: Mapping[str, str], problems: Problems
) -> tuple[Settings, dict[str, str]]:
    """Returns the variables' settings, and the variable of each setting."""
    entries: dict[str, Entry] = {}
    names: dict[str, str] = {}
    for key, variable, value in quick_variables(environ):
        entries[key] = Entry(node=Scalar(value=value), label=variable)
        names[key] = variable
    for variable, near in misspelt_limits(environ):
        problems.add(f"{variable}: there is no such limit. Did you mean {near}?")
    return read_quick(Section(Keys(entries=entries), _verbatim(problems))), names


def _read_config(
    config: object,
    context: Context,
    *,
    environ: Mapping[str, str],
    cwd: Path | None,
) -> tuple[FileSettings, tuple[str, ...], Path | None]:
    """Returns the settings of the file or dict, its name and its path if any."""
    keys, sources, problems = Keys(entries={}), (), context.problems
    path: Path | None = None
    if isinstance(config, Mapping):
        mapping = cast("Mapping[object, object]", config)
        keys, sources = (
            _dict_keys(mapping, problems),
            ("Guard(config)",) if mapping else (),
        )
    elif found := _find_file(config, environ, cwd=cwd, problems=problems):
        path, source, called = found
        keys = read_yaml(path, source=source, called=called, problems=problems)
        sources = (source,)
    return read_file(Section(keys, context)), sources, path


def _find_file(
    config: object, environ: Mapping[str, str], *, cwd: Path | None, problems: Problems
) -> tuple[Path, str, str] | None:
    """Returns the file, its name in messages, and the setting that named it."""
    folder = _folder(cwd)
    if config is not None and not isinstance(config, str | PathLike):
        problems.add(
            f"config: {shown(config)} is neither a path nor a dict. Pass one of them."
        )
        return None
    if config is not None:
        name = os.fsdecode(cast("str | PathLike[str]", config))
        return folder / name, name, f"config: {shown(name)}"
    if name := environ.get(CONFIG_VARIABLE, "").strip():
        return folder / name, name, f"{CONFIG_VARIABLE}: {shown(name)}"
    for parent in (folder, *folder.parents):
        # A broken link counts too: the file is meant, so it must not be missed.
        if os.path.lexists(parent / FILE_NAME):
            name = os.path.relpath(parent / FILE_NAME, folder)
            return parent / FILE_NAME, name, name
    return None


def _folder(cwd: Path | None) -> Path:
    try:
        return Path(cwd or os.curdir).resolve()
    except OSError:
        return Path(os.curdir)  # The process's own folder has been deleted.


def _dict_keys(mapping: Mapping[object, object], problems: Problems) -> Keys:
    try:
        return keys_of(mapping, problems)
    except ValueError as error:
        problems.add(f"config: {error}")
        return Keys(entries={})


def _verbatim(problems: Problems) -> Context:
    return Context(problems=problems, variables=None)
