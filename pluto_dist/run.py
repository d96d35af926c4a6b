"""``Run``, which ``init()`` returns: the run as a script sees it. The work behind it is ``lifecycle``.

Every property returns at once after ``init()``. After ``init(wait=False)`` those that need the tracker's answer block
on first use, and never beyond the timeout.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any, get_args

from pluto_dist.background import border, is_scripts_own
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import ConfigurationError, PlutoDistError
from pluto_dist.identity import NeedsLaunchToken
from pluto_dist.lifecycle import sdk
from pluto_dist.lifecycle.exit_hooks import ExitHooks
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.process_end import Ending, Status
from pluto_dist.lifecycle.termination import TerminationHook
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.serialization.encode import encode
from pluto_dist.serialization.types import summary
from pluto_dist.settings.settings import load

END_LOST = "the run's end may be lost"
SIGTERM = "SIGTERM: the job was stopped or preempted, or another rank of it died"


class Run:
    """One run of the tracker, shared by every rank of the launch.

    Args:
        plan: what ``init()`` decided.
        participant: this rank in the run; ``None`` for a run that does nothing.
    """

    def __init__(self, plan: Plan, participant: Participant | None) -> None:
        self.plan = plan
        self._participant = participant
        self._finished = participant is None
        self._caught: Ending | None = None
        self._exported: sdk.Exported | None = None
        self._sdk: list[sdk.Attached] = []
        self._hooks = None if participant is None else ExitHooks(self)
        # With restarts left SIGTERM is not the end. From here on a signal may call `on_sigterm`.
        listens = participant is not None and not self._restarts_left
        self._termination: TerminationHook | None = None
        self._termination = TerminationHook(self) if listens else None

    # Which run.

    @property
    def id(self) -> int | None:
        """The tracker's number of the run, unique over all projects; ``None`` while the run is offline."""
        return self._answer.run_id if self._answer else None

    @property
    def run_id(self) -> str | None:
        """The external id (or the number or display id that was asked for), equal on all ranks."""
        return self._agreed.reference.value if self._agreed else None

    @property
    def run_id_source(self) -> str | None:
        """Why the run has this id, in words; equal on all ranks."""
        return self._agreed.source if self._agreed else None

    @property
    def display_id(self) -> str | None:
        """What people call the run, such as ``DIG-7``; ``None`` offline."""
        return self._answer.display_id if self._answer else None

    @property
    def number(self) -> int | None:
        """The run's number within its project, from 1; ``None`` offline."""
        return self._answer.number if self._answer else None

    @property
    def url(self) -> str | None:
        """The run's page; ``None`` offline."""
        mine = self._participant.attached if self._participant else None
        if mine is not None:
            return mine.url
        return (self._answer.url or None) if self._answer else None

    @property
    def project(self) -> str:
        return self.plan.request.project_name

    @property
    def organization(self) -> str | None:
        """The organization that the API key belongs to; ``None`` while it is offline."""
        return self._answer.organization_slug if self._answer else None

    @property
    def forked_from(self) -> int | None:
        """The tracker's number of the run that this one is a fork of; ``None`` if it is none, or not known."""
        return self._answer.forked_from_run_id if self._answer else None

    @property
    def fork_step(self) -> int | None:
        """The last step that was inherited from it."""
        return self._answer.fork_step if self._answer else None

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt or launch was already in this run; equal on all ranks.

        What a script needs to know before it loads a checkpoint.
        """
        outcome = self._outcome
        return outcome is not None and outcome.resumed

    @property
    def mode(self) -> str:
        """ "online", "offline" (the tracker was not reached so far, or is not to be) or "disabled"."""
        if self.plan.settings.mode == "disabled":
            return "disabled"
        return "online" if self._answer else "offline"

    # This rank in it.

    @property
    def rank(self) -> int:
        return self.plan.context.topology.rank

    @property
    def world_size(self) -> int:
        return self.plan.context.topology.world_size

    @property
    def is_leader(self) -> bool:
        """Whether this rank is rank 0, which creates and ends the run as a rule."""
        return self.plan.is_rank_zero

    @property
    def finished(self) -> bool:
        """Whether this rank's part is over."""
        return self._finished

    @property
    def failed(self) -> bool:
        """Whether an exception left the run's ``with`` block, or passed ``finish()``, while restarts were left."""
        return self._caught is not None

    # Actions.

    def update_config(self, config: Any) -> None:
        """Merge ``config`` into the run's, later values win. Rank 0 sends it; other ranks do nothing.

        Blocks for one request, at most ``timeout`` seconds. Offline, it is kept with the rest of the run.

        Raises:
            ConfigurationError: the config is not a mapping that ``init()`` takes.
        """
        encoded = encode(config)
        if self.is_leader:
            for line in summary(encoded.losses):
                logger.warning("config: %s", line)
        document = json.dumps(encoded.value)
        if self._participant is not None and self.is_leader and not self._finished:
            with border("a change of the config is lost"):
                self._participant.update_config(document)

    def amend(self, config: dict[str, Any], tags: tuple[str, ...]) -> None:
        """Add what a script passed to its ``init()`` to the run that was opened before its first line; on rank 0.

        Args:
            config: JSON, merged into the run's.
            tags: all that the run is to have.
        """
        if self._participant is None or self._finished or not self.is_leader:
            return
        with border("the config and tags of the script's init() are lost"):
            if config:
                self._participant.update_config(json.dumps(config))
            if set(tags) - set(self.plan.request.tags or ()):
                self._participant.set_tags(tags)

    def attach_sdk(self, **arguments: Any) -> Any:
        """A ``pluto`` run of the official SDK in this run, set up for one rank of many.

        It joins instead of failing if the run exists, samples the system on one rank of each node under a label of that
        node, keeps its files per host and rank, and does not end the run: its ``finish()`` only closes it, as this
        run's ``finish()`` does first.

        Args:
            arguments: of ``pluto.init()``; they override what is set here.

        Returns:
            The SDK's run; ``None`` if there is none to join: offline, disabled, or ended.

        Raises:
            ConfigurationError: pluto-ml is not installed.
        """
        participant = self._participant
        if participant is None or self._finished or self._answer is None or self.run_id is None:
            logger.warning("attach_sdk(): this run is %s, so there is none to attach to", self.mode)
            return None
        attached = sdk.attach(self.plan, self.run_id, samples=participant.is_node_leader, arguments=arguments)
        self._sdk.append(attached)
        if self._hooks is not None:
            self._hooks.end_first()  # before the SDK's own exit function, which waits for no upload
        return attached.op()

    def export_to_sdk(self) -> None:
        """Write this run's id to the SDK's variables, for a plain ``pluto.init()`` here or in a child process."""
        with border("a plain pluto.init() does not find this run"):
            if self._participant is not None and self._exported is None and (run_id := self.run_id) is not None:
                self._exported = sdk.export(run_id, self.project, self._participant.as_parent(run_id))

    def finish(self, status: Status | None = None, *, exit_code: int | None = None) -> None:
        """End the run: COMPLETED, or as the exception says that is in flight where this is called.

        In a ``finally`` block that an exception passes, the run is FAILED, as after a ``with`` block. In an ``except``
        block, whose exception may be put right, it is TERMINATED, with the exception as reason. Each rank ends its own
        part; the owner waits for the others, bounded, and ends the run. Idempotent, and called at exit if the script
        does not.

        Args:
            status: "COMPLETED", "FAILED" or "TERMINATED", whatever is in flight.
            exit_code: the process's, known in advance: 0 is COMPLETED, others are FAILED (or left to a restart).

        Raises:
            ConfigurationError: no such status.
        """
        if status is not None and status not in get_args(Status):
            raise ConfigurationError(f"finish(status=...) takes one of {', '.join(get_args(Status))}; it is {status!r}")
        error = sys.exc_info()[1]
        with border(END_LOST):
            if exit_code is not None:
                self._leave(Ending.of_exit(exit_code, error, f"exit code {exit_code}"))
            elif status is not None:
                self._conclude(Ending(status, error, f"finish(status={status!r})"))
            else:
                self._leave(Ending() if self._hooks is None else self._hooks.ending())

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with border(END_LOST):
            self._leave(Ending() if error is None else Ending.of_exception(error))

    def _leave(self, ending: Ending) -> None:
        """End the part of a script that the run is of; the process goes on."""
        is_exception = ending.error is not None and ending.exitcode is None
        if self._restarts_left and is_exception and not isinstance(ending.error, KeyboardInterrupt):
            self._caught = ending  # the script may handle it; if the process ends by it, a restart continues the run
        else:
            self.on_end(ending)

    def on_end(self, ending: Ending) -> None:
        """End the run of a process that ends, or begins its next run; leave a failure to a restart if one is left."""
        with border(END_LOST):
            self._on_end(ending)

    def _on_end(self, ending: Ending) -> None:
        if self._participant is None or self._finished:
            return
        if ending.status == "COMPLETED" and self._caught is not None:
            self._conclude(self._caught)
        elif ending.status == "FAILED" and self._restarts_left:
            self._release()
            self._participant.abandon(self._failure_of(ending))
            self._stop_listening()
        elif ending.status != "FAILED" and self._termination is not None and self._termination.was_called:
            self._conclude(Ending("TERMINATED", None, SIGTERM))
        else:
            self._conclude(ending)

    def on_sigterm(self) -> None:
        """End the run of a process that received SIGTERM: the job is preempted, or another rank of it has died."""
        participant = self._participant
        if participant is None or (participant.is_supervised and participant.settled.done()):
            return  # the launcher knows of the run
        failure = None if participant.is_supervised else Failure(SIGTERM, self.plan.host, self.rank)
        participant.end("TERMINATED", failure)  # also while finish() waits, or after it
        if not self._finished:
            self._release()  # only now: if the main thread ends meanwhile, its exit hooks wait for this one

    def abandon(self) -> None:
        """Take no part in a run that could not be joined."""
        if self._participant is not None and not self._finished:
            with border("this rank may be waited for"):
                self._release()
                self._participant.abandon()
                self._stop_listening()

    @property
    def _restarts_left(self) -> bool:
        return self.plan.context.restarts_left > 0

    def _conclude(self, ending: Ending) -> None:
        self._end(ending.status, None if ending.status == "COMPLETED" else self._failure_of(ending))

    def _failure_of(self, ending: Ending) -> Failure:
        if ending.error is None:
            failure = Failure(ending.reason, self.plan.host, self.rank)
        else:
            key = self.plan.settings.api_key
            failure = Failure.of_exception(ending.error, rank=self.rank, host=self.plan.host, key=key)
        return failure if ending.exitcode is None else dataclasses.replace(failure, exitcode=ending.exitcode)

    def _end(self, status: str, failure: Failure | None = None) -> None:
        if self._participant is None or self._finished:
            return
        self._release()
        try:
            self._participant.end(status, failure)
        except BaseException as error:
            if is_scripts_own(error):  # ctrl-C while it waits, or what a signal handler raises
                self._participant.end("TERMINATED", self._failure_of(Ending.of_exception(error)))
            raise
        finally:
            self._stop_listening()

    def _release(self) -> None:
        self._finished = True
        if self._hooks is not None:
            self._hooks.remove()
        if self._exported is not None:
            sdk.restore(self._exported)
        for attached in self._sdk:
            attached.release()

    def _stop_listening(self) -> None:
        if self._termination is not None:
            self._termination.remove()

    # The state so far.

    @property
    def _outcome(self) -> Outcome | None:
        if self._participant is None:
            return None
        try:
            return self._participant.settled.result(timeout=self._patience())
        except (PlutoDistError, FutureTimeoutError):
            return None

    @property
    def _answer(self) -> CreateRunResponse | None:
        outcome = self._outcome
        late = self._participant.late if self._participant else None
        return late.answer if late else outcome.answer if outcome else None

    @property
    def _agreed(self) -> AgreedId | None:
        if self._participant is None:
            return None
        try:
            return self._participant.agreed.result(timeout=self._patience())
        except (PlutoDistError, FutureTimeoutError):
            return None

    def _patience(self) -> float:
        return max(0.0, self.plan.started + self.plan.settings.timeout - time.monotonic())

    # Copies: a run may stand in a model, in hyperparameters, in a dataset.

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Run:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return disabled_run, (self.project, self.rank, self.world_size)

    def __repr__(self) -> str:
        return f"<Run {self.display_id or self.run_id} {self.mode}, rank {self.rank} of {self.world_size}>"


def disabled_run(project: str, rank: int, world_size: int) -> Run:
    """What a pickled run becomes in another process, or when it is loaded: a run without a part, which does nothing."""
    plan = Plan(
        load({"PLUTO_DIST_MODE": "disabled"}),
        LaunchContext("none", Topology(rank, world_size)),
        NeedsLaunchToken("none", "a copy of a run", "one process"),
        CreateRunRequest("", project),
        {},
        1,
        "",
        time.monotonic(),
    )
    return Run(plan, None)
