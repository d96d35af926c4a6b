"""One rank in one run: the thread that joins the run and takes part in it, and the end of that part.

The order of the steps is :meth:`Participant._take_part`. The training's thread waits for this one only in ``init()``
and ``finish()``, both bounded.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

from pluto_dist.client import tracker_client
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.failure import Failure
from pluto_dist.contract.run_requests import CreateRunResponse, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.errors import ExchangeError, PlutoDistError, RunIdMismatchError, TrackerError
from pluto_dist.inventory.probes.process import describe
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.attach import attach
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.election import Election, elect
from pluto_dist.lifecycle.heartbeat import Heartbeat
from pluto_dist.lifecycle.inventory_report import publish_inventory, sources_of
from pluto_dist.lifecycle.node_signs import signs_of_life
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.recovery import recover
from pluto_dist.lifecycle.shutdown import HURRY_SECONDS, ShutdownStep
from pluto_dist.lifecycle.supervision import is_recorded, is_supervised, report_failure, report_run
from pluto_dist.log import logger
from pluto_dist.rendezvous.connect import hosts_a_store
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.session import Session

TOKEN_SECONDS = 5.0  # how long a node without state waits for one that has the launch's token
INVENTORY_SECONDS = 2.0  # how long a process that ends waits for its probes
LINGER_SECONDS = 2.0  # how long a rank that learns of an error stays for the others to learn of it
STOP_SECONDS = 12.0  # how long the end waits for this rank's thread: one slot to attach, one request
UNCONNECTED_SECONDS = 0.2  # the same of a rank that is not connected: it has nothing to lose
_OVER = "this rank's part in the run is over"
_PATIENCE = {"COMPLETED": math.inf, "FAILED": 5.0, "TERMINATED": 0.5}  # seconds that an end waits for the outcome


class Participant:
    """This rank in one run.

    Args:
        plan: what ``init()`` decided.
        session: this process's connection to the other ranks.

    Attributes:
        agreed: the run's id, once all ranks can know it.
        settled: the outcome of creating the run.
        late: the outcome that replaced it, if the run began offline and was recovered.
        attached: the tracker's answer to this rank's own attach, once there is one.
    """

    def __init__(self, plan: Plan, session: Session) -> None:
        self.plan = plan
        self.agreed: Future[AgreedId] = Future()
        self.settled: Future[Outcome] = Future()
        self.late: Outcome | None = None
        self.attached: CreateRunResponse | None = None
        self._session = session
        self._client = self._new_client()
        self._membership: Membership | None = None
        self._channel: RunChannel | None = None
        self._context: RankContext | None = None
        self._settled_at = time.monotonic()
        self._is_owner = plan.is_rank_zero  # rank 0 until the election says otherwise
        self._describing: Callable[[], Process] | None = None
        self._inventory: threading.Thread | None = None
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._ended = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pluto_dist run", daemon=True)
        self._thread.start()

    @property
    def is_node_leader(self) -> bool:
        """Whether this rank acts for its node."""
        return self._membership is not None and self._membership.is_node_leader

    # The thread.

    def _run(self) -> None:
        try:
            self._take_part()
        except RunIdMismatchError as error:
            self._linger()
            self._fail(error)
        except PlutoDistError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # border: a bug in this thread must not leave init() waiting
            logger.debug("the run's thread failed", exc_info=True)
            self._fail(ExchangeError(f"pluto_dist failed on this rank: {type(error).__name__}: {error}"))
        finally:
            if self._client is not None:
                self._client.close()

    def _take_part(self) -> None:
        """Join the run, then send its heartbeats (the owner) or attach and stand by (every other rank)."""
        if self.plan.is_rank_zero:
            self._describing = describe(sources_of(self.plan))  # early, for git takes a moment
        context, election = self._join()
        self._is_owner, outcome = election.is_owner, election.outcome
        if outcome.kind == "error":
            self._linger()
        report_run(context, outcome)
        if not self.settled.done():  # else the end came first
            self.settled.set_result(outcome)
        client = context.client
        if client is None:
            return
        if outcome.kind == "offline":
            late = recover(context, client, outcome)
            if late is None:
                return
            self.late = outcome = late
            report_run(context, outcome)
        if outcome.answer is None:
            return
        heartbeat = Heartbeat(context, client, outcome.answer.run_id)
        with signs_of_life(context):
            if self._is_owner:
                heartbeat.run(election.gathered)
            else:
                self.attached = attach(context, outcome, client)
                heartbeat.failover()

    def _join(self) -> tuple[RankContext, Election]:
        """Connect to the other ranks, agree on the run, and create it or wait for the rank that does."""
        while True:
            context = self._connect()
            election = elect(context, self._describe)
            self._settled_at = time.monotonic()
            if election is not None:
                return context, election
            # The attempt in which this rank registered is over: register in the next one.

    def _connect(self) -> RankContext:
        """Connect to the other ranks, and agree with them on the launch's token and the run's id."""
        plan = self.plan
        membership = self._session.connect(plan.context, plan.host, deadline=plan.deadline, stop=self._stop)
        self._membership = membership
        if self._stop.is_set():
            raise ExchangeError(_OVER)  # connected too late to begin a run
        if not membership.has_reported:
            membership.has_reported = True
            self._inventory = publish_inventory(membership, self.agreed, plan)
        token = membership.agree_on_token(plan.topology.node_count, min(TOKEN_SECONDS, plan.settings.timeout / 4))
        channel = self._channel = membership.run(plan.nth)
        agreed = agree(plan, channel, token)
        outbox = Outbox(plan.settings.spool, plan.run_name(agreed.reference), membership.token)
        context = RankContext(plan, membership, channel, agreed, self._client, outbox, self._stop)
        self._context = context
        channel.count("joined")
        if not self.agreed.done():
            self.agreed.set_result(agreed)
        return context

    def _describe(self) -> Process:
        """The description of this process, for the metadata of the run that it creates."""
        self._describing = self._describing or describe(sources_of(self.plan))
        return self._describing()

    def _linger(self) -> None:
        """Stay until every rank has learnt of the error, within a bound: the store may end with this process."""
        channel, membership = self._channel, self._membership
        until, ranks = time.monotonic() + LINGER_SECONDS, self.plan.topology.world_size
        if channel is None or membership is None:
            return
        with suppress(ExchangeError):  # the store has ended already
            channel.count("heard")
            while channel.count("heard", 0) < ranks and time.monotonic() < until and not self._stop.wait(0.02):
                if self.plan.is_rank_zero:  # a node that registered after the error waits to be acknowledged
                    membership.acknowledge_nodes()

    def _fail(self, error: PlutoDistError) -> None:
        for future in (self.agreed, self.settled):
            if not future.done():
                future.set_exception(error)

    # The end, on the caller's thread.

    def end(self, status: str, failure: Failure | None = None) -> None:
        """End this rank's part, and on one rank the run; does nothing the second time, or in a forked child.

        Args:
            status: COMPLETED (which waits for the other ranks), FAILED or TERMINATED.
            failure: goes into the run's statusMetadata.
        """
        if os.getpid() != self._pid or not self._ended.acquire(blocking=False):
            return
        outcome = self._last_outcome(status)
        self._stop_thread(STOP_SECONDS if status == "COMPLETED" else HURRY_SECONDS)
        outcome = self.late or outcome
        recorded = outcome is not None and is_recorded(self.plan, outcome)
        if is_supervised(self.plan):
            if failure is not None and self._membership is not None:
                report_failure(self.plan, self._membership, failure)
        elif self._channel is not None and (recorded or hosts_a_store()):
            step = ShutdownStep(self.plan, self._channel, self._is_owner, self._settled_at)
            if step.is_mine_to_report(status) and recorded and outcome is not None and self._context is not None:
                run_id = outcome.answer.run_id if outcome.answer else 0
                client = None if outcome.kind == "error" else self._new_client()  # a refused key stays refused
                document, updated_at = None if failure is None else failure.to_json(), self.plan.request.updated_at
                request = UpdateStatusRequest.of(run_id, status, document, updated_at)
                step.report(client, self._context.outbox, request)
        self._disconnect()

    def abandon(self, failure: Failure | None = None) -> None:
        """End this rank's part and leave the run as it is, for another attempt to continue.

        Args:
            failure: why, for the next attempt's record.
        """
        if os.getpid() == self._pid and self._ended.acquire(blocking=False):
            self._stop_thread(HURRY_SECONDS)
            try:
                if failure is not None and self._membership is not None and self.agreed.done():
                    self._membership.fail(failure)
            except ExchangeError as error:
                logger.debug("the next attempt will not know why this one failed: %s", error)
            self._disconnect()

    def update_config(self, run_id: int, config: str) -> None:
        """Send a change of the config, or keep it; a refused one is a warning. Does nothing in a forked child.

        Args:
            run_id: the tracker's number, 0 if there is none yet.
            config: a JSON object, as text.
        """
        if os.getpid() != self._pid or self._context is None:
            return
        client, deadline = self._new_client(), time.monotonic() + self.plan.settings.timeout
        try:
            self._context.outbox.send(client, UpdateConfigRequest(run_id, config), deadline)
        except TrackerError as error:
            logger.warning("a change of the config was not taken: %s", error)
        finally:
            if client is not None:
                client.close()

    def _new_client(self) -> TrackerClient | None:
        topology = self.plan.topology
        who = f"rank {topology.rank} of {topology.world_size}; {self.plan.host}"
        return tracker_client.from_settings(self.plan.settings, who)

    def _last_outcome(self, status: str) -> Outcome | None:
        """The outcome; a failure waits a little for it, an interrupt hardly."""
        left = self.plan.deadline - time.monotonic() + 1
        try:
            return self.settled.result(timeout=max(0.0, min(left, _PATIENCE[status])))
        except (PlutoDistError, FutureTimeoutError):
            return None

    def _stop_thread(self, seconds: float) -> None:
        self._stop.set()
        if self._client is not None:
            self._client.stop()
        self._thread.join(seconds if self._channel is not None else UNCONNECTED_SECONDS)
        self._fail(ExchangeError(_OVER))  # a thread that still waits for a result waits no longer
        if self._inventory is not None:
            # A thread that is importing while the interpreter ends holds the import's lock for ever, and an import by
            # another thread (in a destructor, say) hangs (CPython 3.10 to 3.13).
            self._inventory.join(INVENTORY_SECONDS)

    def _disconnect(self) -> None:
        if self._membership is not None:
            self._membership.store.close()
