"""Opening: whose a session is that a guard opens.

That is said by the names it is given, then by what is around it, then by the
environment. What is around may be in another process: a guard that starts a child names
there its session, the agents at work and the sessions around, and the child's calls are
charged to all of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, Self, cast

from guardrails.config import (
    agent_path_from_environment,
    attribution_from_environment,
    sessions_from_environment,
    tags_from_environment,
)
from guardrails.config.problems import shown
from guardrails.core.attribution import TAGS_MAX, Attribution
from guardrails.engine import Engine
from guardrails.errors import ConfigurationError
from guardrails.sessions.session import Session

__all__ = ["Around", "Opener"]

_INHERITED = ("project_id", "customer_id", "user_id", "feature", "prompt_version")
"""What a session inside another one is charged to as well, if it does not say."""


class Around(NamedTuple):
    """What is around the running code: a session, and whom calls are charged to."""

    session: Session
    attribution: Attribution

    @classmethod
    def of(cls, session: Session) -> Self:
        """Returns what calls in a session find that know no more than it."""
        return cls(session, session.attribution)


class Opener:
    """Opens the sessions of one guard.

    Args:
        engine: The guard's.
        project_id: The project of what is not inside another session.
        environ: The environment of the process.
    """

    def __init__(
        self, engine: Engine, *, project_id: str, environ: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._project_id = project_id
        self._names = attribution_from_environment(environ)
        self._tags = tags_from_environment(environ)
        self._agent_path = agent_path_from_environment(environ)
        """The agents that another process has this one work for, if one does."""
        self._sessions_around = sessions_from_environment(environ)

    @property
    def joined(self) -> str | None:
        """The session that the environment names."""
        return self._names.get("session_id")

    def open(
        self,
        given: Mapping[str, str],
        tags: Mapping[str, str] | None,
        *,
        around: Around | None,
    ) -> Session:
        """Opens a session inside what is around, be it in the process that started us.

        Args:
            given: Names, as for `Guard.session`.
            tags: Likewise.
            around: What is around in this process.

        Raises:
            ConfigurationError: If a name is wrong.
        """
        return self._opened(given, tags, around or self._parents(given))

    def open_for_adapter(
        self, names: Mapping[str, object], *, is_served: bool
    ) -> Session:
        """Opens a session whose names were checked or cleaned.

        Args:
            names: As for `Guard.session`, `tags` among them.
            is_served: They came with a request, and are of whoever is served: what
                that spends is not charged to who has started this server.
        """
        given = cast("dict[str, str]", dict(names))
        tags = cast("Mapping[str, str] | None", given.pop("tags", None))
        return self._opened(given, tags, None if is_served else self._parents(given))

    def _opened(
        self,
        given: Mapping[str, str],
        tags: Mapping[str, str] | None,
        parent: Around | None,
    ) -> Session:
        agent = given.get("agent")
        who = self._attribution(given, tags, parent)
        outer = None if parent is None else parent.session
        owner: Attribution | None = None
        path, is_joined = self._agent_path, who.session_id == self.joined
        if path is not None and outer is None and is_joined:
            # Another process has opened this session, and has this one work in it.
            owner = self._owned(who, self.joined, self._names.get("agent"))
            who = replace(who, agent=path[-1] if path else None, agent_path=path)
            if agent is not None and agent != who.agent:
                who = who.under(agent)
            for session_id, other in reversed(self._sessions_around):
                around = self._owned(who, session_id, other)
                outer = Session(self._engine, attribution=around, parent=outer)
        return Session(self._engine, attribution=who, parent=outer, owner=owner)

    def _parents(self, given: Mapping[str, str]) -> Around | None:
        """Returns the session that another process has this one work in, if any.

        It is around all sessions but itself.
        """
        if self._agent_path is None or given.get("session_id") in (None, self.joined):
            return None
        return Around.of(self._opened({}, None, None))

    def _owned(
        self, who: Attribution, session_id: str | None, agent: str | None
    ) -> Attribution:
        """Returns whose a session is that another process has opened."""
        path = self._agent_path or ()
        above = path[: path.index(agent) + 1] if agent in path else ()
        return replace(who, session_id=session_id, agent=agent, agent_path=above)

    def _attribution(
        self,
        given: Mapping[str, str],
        tags: Mapping[str, str] | None,
        parent: Around | None,
    ) -> Attribution:
        if not isinstance(cast("object", tags), Mapping | None):
            raise ConfigurationError(
                f"tags: {shown(tags)} is no mapping of names to values. Pass pairs, "
                'as in tags={"env": "prod"}.'
            )
        try:
            if parent is not None:
                return _nested(given, tags or {}, parent.attribution)
            names = {"project_id": self._project_id} | self._names | dict(given)
            return Attribution.of(**names, tags=self._with_own_tags(tags or {}))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def _with_own_tags(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Adds the tags of the environment, as many as there is room for."""
        room = max(0, TAGS_MAX - len(given))
        added = [pair for pair in self._tags.items() if pair[0] not in given]
        return {**dict(added[:room]), **given}


def _nested(
    given: Mapping[str, str], tags: Mapping[str, str], outer: Attribution
) -> Attribution:
    """Returns whom a session is charged to that is opened inside another one.

    Raises:
        ConfigurationError: If it is to be of another project.
        ValueError: If a name is wrong.
    """
    if given.get("project_id", outer.project_id) != outer.project_id:
        # Both sessions are charged in one step, and a cluster keeps each project on a
        # server of its own.
        raise ConfigurationError(
            f"session: project_id={given['project_id']!r} inside a session of "
            f"project {outer.project_id!r}. Open it outside of that session, or leave "
            "project_id out."
        )
    names = {key: outer.value(key) for key in _INHERITED} | dict(given)
    agent = names.pop("agent", None)
    child = Attribution.of(**names, tags=dict(outer.tags) | dict(tags))
    return child.following(outer, agent)
