"""What ``init()`` returns: the run, as a script sees it.

Reads like a record; the work behind it is ``lifecycle``. Every property answers at once after ``init()``; only
with ``wait=False`` those that need the tracker's answer block on first use, and never beyond the timeout.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.errors import PlutoDistError
from pluto_dist.lifecycle import sdk
from pluto_dist.lifecycle.exit_hooks import ExitHooks, TerminationHook
from pluto_dist.lifecycle.participant import Participant
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.shutdown import cause_of
from pluto_dist.log import logger
from pluto_dist.rendezvous.messages import AgreedId, Failure, Outcome
from pluto_dist.serialization.encode import encode
from pluto_dist.serialization.types import summary


class Run:
    """One run of the tracker, shared by every rank of the launch.

    Args:
        plan: what ``init()`` set out to do.
        participation: this rank's part in it; ``None`` for a run that does nothing.
    """

    def __init__(self, plan: Plan, participation: Participant | None) -> None:
        self.plan = plan
        self._participation = participation
        self._finished = participation is None
        self._hooks = None if participation is None else ExitHooks(self)
        # Where a restart would go on, and where a launcher is above, SIGTERM is no end; other ranks tell none.
        listens = participation is not None and plan.is_rank_zero and not plan.context.restarts_left
        self._termination = TerminationHook(self) if listens and plan.context.supervisor is None else None
        self._caught: BaseException | None = None
        self._exported: sdk.Exported | None = None
        self._sdk: list[Any] = []

    # Which run.

    @property
    def id(self) -> int | None:
        """The tracker's number of the run, unique over all projects; ``None`` while it is offline."""
        return self._answer.run_id if self._answer else None

    @property
    def run_id(self) -> str | None:
        """The external id (or the number or display id that was asked for), equal on all ranks."""
        return self._signed.reference.value if self._signed else None

    @property
    def run_id_source(self) -> str | None:
        """Why the run has this id, in words; equal on all ranks."""
        return self._signed.source if self._signed else None

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
        mine = self._participation.attached if self._participation else None
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
        """The tracker's number of the run that this one is a fork of; ``None`` too where the tracker does not say."""
        return self._answer.forked_from_run_id if self._answer else None

    @property
    def fork_step(self) -> int | None:
        """The last step that was inherited from it."""
        return self._answer.fork_step if self._answer else None

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt or launch already lived in this run; equal on all ranks.

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

    # Where this rank stands in it.

    @property
    def rank(self) -> int:
        return self.plan.context.topology.rank

    @property
    def world_size(self) -> int:
        return self.plan.context.topology.world_size

    @property
    def is_leader(self) -> bool:
        """Whether this is rank 0, which creates and ends the run."""
        return self.plan.is_rank_zero

    @property
    def finished(self) -> bool:
        """Whether this rank's part is over."""
        return self._finished

    @property
    def failed(self) -> bool:
        """Whether an exception left the run's ``with`` block while a restart could still go on with it."""
        return self._caught is not None

    # What can be done with it.

    def update_config(self, config: Any) -> None:
        """Merge ``config`` into the run's, later values win. The leader sends it; other ranks do nothing.

        Blocks for one request, at most ``timeout`` seconds. Offline, it is kept with the rest of the run.

        Raises:
            ConfigurationError: the config is no mapping of any kind that ``init()`` takes.
        """
        encoded = encode(config)
        if self.is_leader:
            for line in summary(encoded.losses):
                logger.warning("config: %s", line)
        document = json.dumps(encoded.value)
        participation = self._participation
        if participation is not None and self._outcome is not None and self.is_leader and not self._finished:
            participation.update_config(self.id or 0, document)

    def attach_sdk(self, **arguments: Any) -> Any:
        """A ``pluto`` run of the official SDK in this run, set up for one rank of many.

        It joins instead of failing where the run exists, samples the system on one rank of each node under a label of
        that node, keeps its files per host and rank, and ends nothing: its ``finish()`` only lets go, and this run's
        does that first.

        Args:
            arguments: of ``pluto.init()``; they win over what is set here.

        Returns:
            The SDK's run; ``None`` where there is none to join: offline, disabled, or ended.

        Raises:
            ConfigurationError: pluto-ml is not installed.
        """
        participation = self._participation
        if participation is None or self._finished or self._answer is None or self.run_id is None:
            logger.warning("attach_sdk(): this run is %s, so there is none to attach to", self.mode)
            return None
        op = sdk.attach(self.plan, self.run_id, samples=participation.is_node_leader, arguments=arguments)
        self._sdk.append(op)
        return op

    def hand_over(self) -> None:
        """Name this run to whatever reads the SDK's variables: a plain ``pluto.init()``, or a process started here."""
        if self._participation is not None and self._exported is None and (run_id := self.run_id) is not None:
            self._exported = sdk.export(run_id, self.project)

    def finish(self) -> None:
        """End the run as COMPLETED.

        Each rank ends its own part; the leader waits for the others, bounded, and ends the run. Idempotent, and
        called at exit where the script does not.
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
            self._caught = error  # the script may handle it; if the process dies of it, a restart goes on
        else:
            self.crashed(error)

    def survived(self) -> None:
        """End the run of a process that reached its end, or its next run, without dying of an exception."""
        if self._caught is None:
            self.finish()
        else:
            self._fail(self._caught)

    def crashed(self, error: BaseException) -> None:
        """End the run as the exception that ends this process demands; leave it where a restart will go on."""
        if self._participation is None or self._finished:
            return
        if self.plan.context.restarts_left and not isinstance(error, KeyboardInterrupt):
            self._let_go()
            self._participation.abandon(Failure(cause_of(self.plan, error)["reason"], self.rank, self.plan.host))
        else:
            self._fail(error)

    def terminated(self) -> None:
        """End the run of a process that was sent SIGTERM: the job is preempted, or another rank of it has died."""
        reason = "SIGTERM: the job was stopped or preempted, or another rank of it died"
        self._end("TERMINATED", {"reason": reason, "rank": self.rank, "host": self.plan.host})

    def give_up(self) -> None:
        """Have no part in a run that could not be joined."""
        if self._participation is not None and not self._finished:
            self._let_go()
            self._participation.abandon()

    def _fail(self, error: BaseException) -> None:
        status = "TERMINATED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._end(status, cause_of(self.plan, error))

    def _end(self, status: str, cause: dict[str, Any] | None = None) -> None:
        if self._participation is not None and not self._finished:
            self._let_go()
            for op in self._sdk:
                sdk.release(op)
            self._participation.end(status, cause)

    def _let_go(self) -> None:
        self._finished = True
        if self._hooks is not None:
            self._hooks.remove()
        if self._termination is not None:
            self._termination.remove()
        if self._exported is not None:
            sdk.take_back(self._exported)

    # What is known so far.

    @property
    def _outcome(self) -> Outcome | None:
        if self._participation is None:
            return None
        try:
            return self._participation.settled.result(timeout=self._patience())
        except (PlutoDistError, FutureTimeoutError):
            return None

    @property
    def _answer(self) -> CreateRunResponse | None:
        outcome = self._outcome
        late = self._participation.late if self._participation else None
        return late.answer if late else outcome.answer if outcome else None

    @property
    def _signed(self) -> AgreedId | None:
        if self._participation is None:
            return None
        try:
            return self._participation.agreed.result(timeout=self._patience())
        except (PlutoDistError, FutureTimeoutError):
            return None

    def _patience(self) -> float:
        return max(0.0, self.plan.began + self.plan.settings.timeout - time.monotonic())

    def _is_ours(self, url: str) -> bool:
        """Whether a URL that came over the store leads to the tracker this rank was told of."""
        parts = urlsplit(url)
        known = (urlsplit(self.plan.settings.url_api), urlsplit(self.plan.settings.url_app))
        return any((parts.scheme, parts.netloc) == (ours.scheme, ours.netloc) for ours in known)

    def __repr__(self) -> str:
        return f"<Run {self.display_id or self.run_id} {self.mode}, rank {self.rank} of {self.world_size}>"
