"""``Run``, which ``init()`` returns: the run as a script sees it. The work behind it is ``lifecycle``.

Every property returns at once after ``init()``. After ``init(wait=False)`` those that need the tracker's answer block
on first use, and never beyond the timeout.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.errors import PlutoDistError
from pluto_dist.lifecycle import sdk
from pluto_dist.lifecycle.exit_hooks import ExitHooks
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.termination import TerminationHook
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.serialization.encode import encode
from pluto_dist.serialization.types import summary

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
        self._caught: BaseException | None = None
        self._exported: sdk.Exported | None = None
        self._sdk: list[Any] = []
        self._hooks = None if participant is None else ExitHooks(self)
        # With restarts left SIGTERM is not the end. From here on a signal may call `on_sigterm`.
        listens = participant is not None and not plan.context.restarts_left
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
        return self._answer.url if self._answer and self._is_ours(self._answer.url) else None

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
        """Whether an exception left the run's ``with`` block while a restart could still go on with it."""
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
            self._participant.update_config(document)

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
        op = sdk.attach(self.plan, self.run_id, samples=participant.is_node_leader, arguments=arguments)
        self._sdk.append(op)
        return op

    def export_to_sdk(self) -> None:
        """Write this run's id to the SDK's variables, for a plain ``pluto.init()`` here or in a child process."""
        if self._participant is not None and self._exported is None and (run_id := self.run_id) is not None:
            self._exported = sdk.export(run_id, self.project)

    def finish(self) -> None:
        """End the run as COMPLETED.

        Each rank ends its own part; the owner waits for the others, bounded, and ends the run. Idempotent, and called
        at exit if the script does not.
        """
        self._end("COMPLETED")

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        elif self.plan.context.restarts_left and not isinstance(error, SystemExit):
            self._caught = error  # the script may handle it; if the process ends by it, a restart continues the run
        else:
            self.on_exception(error)

    def on_exit(self) -> None:
        """End the run of a process that reached its end, or its next run, without an uncaught exception."""
        if self._termination is not None and self._termination.was_called:
            self._end("TERMINATED", Failure(SIGTERM, self.plan.host, self.rank))
        elif self._caught is None:
            self.finish()
        else:
            self._fail(self._caught)

    def on_exception(self, error: BaseException) -> None:
        """End the run of a process that ends by ``error``; leave it to the next attempt if restarts are left."""
        if self._participant is None or self._finished:
            return
        if self.plan.context.restarts_left and not isinstance(error, KeyboardInterrupt):
            self._release()
            self._participant.abandon(self._failure_of(error))
            self._stop_listening()
        else:
            self._fail(error)

    def on_sigterm(self) -> None:
        """End the run of a process that received SIGTERM: the job is preempted, or another rank of it has died."""
        participant = self._participant
        if participant is None or (participant.is_supervised and participant.settled.done()):
            return  # the launcher knows of the run
        failure = None if participant.is_supervised else Failure(SIGTERM, self.plan.host, self.rank)
        if self._finished:
            participant.end("TERMINATED", failure)  # while finish() waits, or after it
        else:
            self._end("TERMINATED", failure)

    def abandon(self) -> None:
        """Take no part in a run that could not be joined."""
        if self._participant is not None and not self._finished:
            self._release()
            self._participant.abandon()
            self._stop_listening()

    def _fail(self, error: BaseException) -> None:
        status = "TERMINATED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._end(status, self._failure_of(error))

    def _failure_of(self, error: BaseException) -> Failure:
        return Failure.of_exception(error, rank=self.rank, host=self.plan.host, key=self.plan.settings.api_key)

    def _end(self, status: str, failure: Failure | None = None) -> None:
        if self._participant is not None and not self._finished:
            self._release()
            for op in self._sdk:
                sdk.release(op)
            try:
                self._participant.end(status, failure)
            except BaseException as error:  # ctrl-C while it waits, or what a script's signal handler raises
                self._participant.end("TERMINATED", self._failure_of(error))
                raise
            finally:
                self._stop_listening()

    def _release(self) -> None:
        self._finished = True
        if self._hooks is not None:
            self._hooks.remove()
        if self._exported is not None:
            sdk.restore(self._exported)

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

    def _is_ours(self, url: str) -> bool:
        """Whether a URL from the store is of the tracker in this rank's settings."""
        parts = urlsplit(url)
        known = (urlsplit(self.plan.settings.url_api), urlsplit(self.plan.settings.url_app))
        return any((parts.scheme, parts.netloc) == (ours.scheme, ours.netloc) for ours in known)

    def __repr__(self) -> str:
        return f"<Run {self.display_id or self.run_id} {self.mode}, rank {self.rank} of {self.world_size}>"
