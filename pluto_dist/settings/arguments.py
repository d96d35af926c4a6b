"""The arguments of ``init()``, and the create-run request that they make; one error lists every problem.

What the command line of `pluto-dist run` or ``python -m pluto_dist`` gives is on top: an option wins over the same
argument of ``init()``, config and tags are merged.

Pure, except for a config that is the path of a file. Settings that environment variables may give as well are in
``settings``; the encoding of single values is in ``serialization``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pluto_dist.contract.run_ref import impossible, is_display_id, reference
from pluto_dist.contract.run_requests import CreateRunRequest, refusals
from pluto_dist.contract.storable import storable
from pluto_dist.contract.validation import issues, merged
from pluto_dist.errors import ConfigurationError
from pluto_dist.serialization.encode import encode
from pluto_dist.serialization.types import Encoded
from pluto_dist.settings.settings import Settings, load

_READING = 1 / 3  # of the timeout, for reading the config, which runs code of its objects


@dataclass(frozen=True)
class Arguments:
    """The arguments of ``init()`` as they were passed; ``None`` for those that were not."""

    project: Any = None
    name: Any = None
    config: Any = None
    tags: Any = None
    run_id: Any = None
    resume: Any = None
    fork_run_id: Any = None
    fork_step: Any = None
    inherit_config: Any = None
    inherit_tags: Any = None
    logger_settings: Any = None
    created_at: Any = None
    updated_at: Any = None
    mode: Any = None
    timeout: Any = None
    on_error: Any = None
    metadata: Any = None

    def changed(self, later: Arguments) -> tuple[str, ...]:
        """The names of the arguments that ``later`` passes with another value than these."""
        names = (field.name for field in dataclasses.fields(self))
        pairs = ((name, getattr(self, name), getattr(later, name)) for name in names)
        # Compared as JSON: == of two arrays has no truth value.
        return tuple(
            name for name, before, now in pairs if now is not None and encode({"": before}) != encode({"": now})
        )

    def contradicted_by(self, command_line: Arguments) -> tuple[tuple[str, Any, Any], ...]:
        """The arguments for which ``command_line`` has another value: name, value here, value there.

        >>> Arguments(project="a", name="x").contradicted_by(Arguments(project="b"))
        (('project', 'a', 'b'),)
        """
        values = ((name, getattr(self, name), getattr(command_line, name)) for name in _ONE_VALUE)
        return tuple(each for each in values if None not in each and str(each[1]) != str(each[2]))

    def below(self, command_line: Arguments) -> Arguments:
        """These arguments with the options of ``command_line`` on top; ``resolve`` merges the configs.

        >>> Arguments(project="a", name="x", tags="gpu").below(Arguments(project="b", tags=["cpu"])).tags
        ['gpu', 'cpu']
        """
        given = {name: value for name in _ONE_VALUE if (value := getattr(command_line, name)) is not None}
        mine = [self.tags] if isinstance(self.tags, str) else self.tags
        if command_line.tags and isinstance(mine, (Sequence, type(None))):
            given["tags"] = list(dict.fromkeys([*(mine or ()), *command_line.tags]))
        return dataclasses.replace(self, **given)


_ONE_VALUE = ("project", "name", "run_id", "resume", "mode")  # what a command line gives beside config and tags


@dataclass(frozen=True, slots=True)
class ResolvedArguments:
    """The arguments, checked and completed from the environment.

    Attributes:
        settings: the settings, from arguments, environment and defaults.
        request: the create-run request, without external id, config and metadata.
        config: the user's config as JSON, and what was lost.
        fork_of: the display id of the run to fork from, if it was given as one; the tracker knows its number.
    """

    settings: Settings
    request: CreateRunRequest
    config: Encoded
    fork_of: str = ""


def resolve(
    given: Arguments,
    environ: Mapping[str, str],
    command_line: Arguments = Arguments(),  # frozen
) -> ResolvedArguments:
    """Check ``given`` with ``command_line`` on top, and complete it from ``environ`` and the defaults.

    Raises:
        ConfigurationError: lists all problems.
    """
    problems: list[str] = []
    given = given.below(command_line)
    chosen: Settings | None = None
    try:
        chosen = load(
            environ,
            project=given.project,
            run_id=given.run_id,
            resume=given.resume,
            mode=given.mode,
            timeout=given.timeout,
            on_error=given.on_error,
            metadata=given.metadata,
        )
    except ConfigurationError as error:
        problems.extend(error.problems)
    config = Encoded({})
    try:
        config = encode(given.config, seconds=(chosen.timeout if chosen else 0) * _READING)
        if command_line.config is not None:
            config = dataclasses.replace(config, value=merged(config.value, encode(command_line.config).value))
    except ConfigurationError as error:
        problems.extend(error.problems)
    request = _request(given, chosen.project if chosen else "", problems)
    fork_of = given.fork_run_id if is_display_id(given.fork_run_id) else ""
    if fork_of and given.fork_step is None:
        problems.append("fork_step= is needed with fork_run_id=: the last step to inherit")
    if chosen is None or request is None or problems:
        raise ConfigurationError(*problems)
    return ResolvedArguments(chosen, request, config, fork_of)


def _request(given: Arguments, project: str, problems: list[str]) -> CreateRunRequest | None:
    tags = (given.tags,) if isinstance(given.tags, str) else given.tags
    if tags is not None and (not isinstance(tags, Sequence) or not all(isinstance(tag, str) for tag in tags)):
        problems.append(f"tags= must be a list of strings; it is {given.tags!r:.100}")
        tags = None
    fork_run_id = given.fork_run_id
    if isinstance(fork_run_id, str) and (why := impossible(fork_run_id)):
        problems.append(f"fork_run_id= {why}; it is {fork_run_id[:200]!r}")
        fork_run_id = None
    elif isinstance(fork_run_id, str) and reference(fork_run_id).kind == "number":
        fork_run_id = int(fork_run_id)
    elif is_display_id(fork_run_id):
        fork_run_id = None
    request = CreateRunRequest(
        run_name="" if given.name is None else given.name,
        project_name=project,
        tags=None if tags is None else tuple(tags),
        logger_settings=_document("logger_settings", given.logger_settings, problems),
        created_at=given.created_at,
        updated_at=given.updated_at,
        fork_run_id=fork_run_id,
        fork_step=given.fork_step,
        inherit_config=given.inherit_config,
        inherit_tags=given.inherit_tags,
    )
    # The settings check the run id: they know whether it is an argument or a variable.
    found = issues(CreateRunRequest, request.to_json())
    problems.extend(f"{'.'.join(map(str, issue.path))}: {issue.message}" for issue in found)
    if found:
        return None
    problems.extend(refusals(request))
    return storable(request)


def _document(argument: str, value: Any, problems: list[str]) -> str | None:
    if value is None:
        return None
    try:
        return json.dumps(encode(value, argument).value)
    except ConfigurationError as error:
        problems.extend(error.problems)
        return None
