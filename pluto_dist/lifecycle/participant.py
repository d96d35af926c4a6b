"""One rank in one run: the thread that joins the run and takes part in it, and the end of that part.

The order of the steps is :meth:`Participant._take_part`. The training's thread waits for this one only in ``init()``
and ``finish()``, both bounded. Neither returns before the run is in the tracker, or kept on disk.
"""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

from pluto_dist.background import new_thread
from pluto_dist.client import tracker_client
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.failure import Failure, now_ms
from pluto_dist.contract.run_requests import (
    CreateRunResponse,
    UpdateConfigRequest,
    UpdateStatusRequest,
    UpdateTagsRequest,
)
from pluto_dist.environments.process_facts import PARENT_KEY, describe_parent
from pluto_dist.errors import ExchangeError, PlutoDistError, RunError, RunIdMismatchError, TrackerError, received
from pluto_dist.inventory.probes.process import describe
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.attach import attach
from pluto_dist.lifecycle.belief import believed, check_attach, confirmed_number
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.election import Election, elect, enqueue_create
from pluto_dist.lifecycle.heartbeat import Heartbeat
from pluto_dist.lifecycle.inventory_report import publish_inventory, sources_of
from pluto_dist.lifecycle.node_signs import signs_of_life
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.recovery import recover
from pluto_dist.lifecycle.shutdown import END_SECONDS, HURRY_SECONDS, ShutdownStep, status_deadline
from pluto_dist.lifecycle.supervision import is_recorded, is_supervised, launcher_knows, report_end, report_run
from pluto_dist.lifecycle.unsettled import UnsettledRun, creation_of
from pluto_dist.log import logger
from pluto_dist.rendezvous.connect import hosts_a_store
from pluto_dist.rendezvous.file_store import FileStore
from pluto_dist.rendezvous.membership import AttemptOverError, Membership
from pluto_dist.rendezvous.messages import AgreedId, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel
from pluto_dist.rendezvous.session import Session
from pluto_dist.rendezvous.store_thread import ANSWER_SECONDS, HURRIED_SECONDS, answers_within

TOKEN_SECONDS = 5.0  # how long a node without state waits for one that has the launch's token
INVENTORY_SECONDS = 2.0  # how long a process that ends waits for its probes
LINGER_SECONDS = 2.0  # how long a rank that learns of an error stays for the others to learn of it
STOP_SECONDS = 12.0  # how long the end waits for this rank's thread: one slot to attach, one request
UNCONNECTED_SECONDS = 0.2  # the same of a rank that is not connected: it keeps the run without its thread
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
        has_told: whether ``init()`` has logged on some rank where the run is kept, if it is not in the tracker.
        is_awaited: whether ``init()`` waits for the outcome, and logs why there is none.
    """

    def __init__(self, plan: Plan, session: Session) -> None:
        self.plan = plan
        self.agreed: Future[AgreedId] = Future()
        self.settled: Future[Outcome] = Future()
        self.late: Outcome | None = None
        self.attached: CreateRunResponse | None = None
        self.has_told, self.is_awaited = False, True
        self._session = session
        self._client = self._new_client()
        self._membership: Membership | None = None
        self._channel: RunChannel | None = None
        self._context: RankContext | None = None
        self._settled_at = time.monotonic()
        self._is_owner = plan.is_rank_zero  # rank 0 until the election says otherwise
        self._unsettled = UnsettledRun(plan, session)
        self._held: deque[str] = deque()  # changes of the config that came before the run was settled
        self._describing: Callable[[], Process] | None = None
        self._inventory: threading.Thread | None = None
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._ending: tuple[str, Failure | None] | None = None  # how this rank ends, once it does
        self._is_hurried = self._is_reporter = False
        self._over, self._ender = threading.Event(), threading.main_thread()
        self._thread = new_thread(self._run, "pluto_dist run", lost="this rank sends no more requests until its end")
        self._thread.start()

    @property
    def is_node_leader(self) -> bool:
        """Whether this rank acts for its node."""
        return self._membership is not None and self._membership.is_node_leader

    @property
    def is_supervised(self) -> bool:
        """Whether `pluto-dist run` is above this rank, and ends the run."""
        context = self._context
        return is_supervised(self.plan) if context is None else launcher_knows(context, owns=self._is_owner)

    @property
    def trouble(self) -> str:
        """Why the disk does not take what this rank keeps; "" if it does, or if nothing had to be kept."""
        outboxes = (self._unsettled.outbox, None if self._context is None else self._context.outbox)
        return next((outbox.trouble for outbox in outboxes if outbox is not None and outbox.trouble), "")

    def as_parent(self, run_id: str) -> str:
        """This process, as its children are to see it."""
        store = None if self._membership is None else self._membership.store
        text = describe_parent(run_id, store.path if isinstance(store, FileStore) else "", self.plan.environ)
        if isinstance(store, FileStore):
            store.set(PARENT_KEY, text)
        return text

    def keep(self) -> bool:
        """Keep the run on disk while it is not settled; whether this rank knows that it, or another rank, does so."""
        with answers_within(HURRIED_SECONDS):
            self._unsettled.keep(self._context, self._describing)
        return self._unsettled.context is not None or self._outcome() is not None

    # The thread.

    def _run(self) -> None:
        try:
            self._take_part()
        except RunIdMismatchError as error:
            if self.settled.done():  # init() has returned, and raises it no more
                logger.error("this rank leaves the run: %s", error)
                self.late = Outcome("error", error=type(error).__name__, message=str(error))
            if self._unsettled.outbox is not None:
                self._unsettled.outbox.set_aside(str(error))
            self._linger()
            self._fail(error)
        except PlutoDistError as error:
            self._fail(error)
        except Exception as error:  # border: a fault in this thread must not leave init() waiting
            is_reported = self.is_awaited and not self.settled.done()  # by init(), which must not wait on
            self._fail(ExchangeError(f"pluto_dist failed on this rank: {type(error).__name__}: {error}"))
            if not is_reported:
                raise
            logger.debug("the run's thread failed", exc_info=True)
        finally:
            if self._client is not None:
                self._client.close()

    def _take_part(self) -> None:
        """Join the run, then send its heartbeats (the owner) or attach and stand by (every other rank)."""
        plan = self.plan
        if plan.is_rank_zero:
            self._describing = describe(sources_of(plan))  # early, for git takes a moment
        context, election = self._join()
        self._is_owner, outcome = election.is_owner, election.outcome
        if outcome.kind == "error":
            self._linger()
        if not self._is_owner:
            outcome = believed(context, outcome)
        report_run(context, outcome, owns=self._is_owner)
        if not self.settled.done():  # else the end came first
            self.settled.set_result(outcome)
        self._keep_or_not(context, outcome)
        self._send_held(context, status_deadline())
        client = context.client
        if client is None:
            return
        if outcome.kind == "offline":
            late = recover(context, client, outcome)
            if late is None:
                return
            self.late = outcome = late
            self._keep_or_not(context, late)
            report_run(context, outcome, owns=self._is_owner)
        if outcome.answer is None:
            return
        heartbeat = Heartbeat(context, client, outcome.answer.run_id)
        with signs_of_life(context):
            if self._is_owner:
                heartbeat.run(election.gathered)
            else:
                attached = attach(context, outcome, client)
                check_attach(context, outcome, attached)
                self.attached = attached
                heartbeat.failover()

    def _keep_or_not(self, context: RankContext, outcome: Outcome) -> None:
        """What this rank keeps of its run goes nowhere if the run is refused, and is not needed if it is settled."""
        if outcome.kind != "error":
            self._unsettled.settled()
        elif isinstance(received(outcome.error, ""), (RunError, RunIdMismatchError)):
            self._unsettled.refused()
            (self._unsettled.outbox or context.outbox).set_aside(outcome.message)
        elif self._unsettled.outbox is not None:  # init() has returned, and raises it no more
            spool = self.plan.settings.spool
            logger.warning("the run could not be created; it stays in %s: %s", spool, outcome.message)

    def _join(self) -> tuple[RankContext, Election]:
        """Connect to the other ranks, agree on the run, and create it or wait for the rank that does."""
        while True:
            with suppress(AttemptOverError):  # this rank registers again
                context = self._connect()
                election = elect(context, self._describe)
                self._settled_at = time.monotonic()
                return context, election

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
        outbox = plan.outbox(agreed.reference, membership.token)
        context = RankContext(plan, membership, channel, agreed, self._client, outbox, self._stop)
        self._context = context
        channel.count("joined")
        self._unsettled.agreed(context)
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

        While an end is in progress, one as TERMINATED (a signal, an interrupt) goes through the same steps in a hurry.

        Args:
            status: COMPLETED (which waits for the other ranks), FAILED or TERMINATED.
            failure: goes into the run's statusMetadata.
        """
        if os.getpid() != self._pid:
            return
        if (begun := self._begin_end(status, failure)) is None:
            if threading.main_thread() is not self._ender:
                self._over.wait(END_SECONDS)  # the process may end once this returns, and the other thread with it
            return
        with answers_within(ANSWER_SECONDS if status == "COMPLETED" else HURRIED_SECONDS):
            self._end(status, *begun)

    def _end(self, asked: str, status: str, failure: Failure | None) -> None:
        """The steps of the end that was asked for; an interrupt of another one goes through them as that one."""
        outcome = self._last_outcome(asked)
        waits = asked == "COMPLETED" and self._is_owner and outcome is not None and outcome.answer is not None
        if not waits:  # else the heartbeats go on until the other ranks are done, for the run is alive
            self._stop_thread(STOP_SECONDS if asked == "COMPLETED" else HURRY_SECONDS)
        if status == "FAILED" and failure is not None and not self.is_supervised:
            self._tell_next_attempt(failure)  # another node's launcher may have a restart left
        outcome = self._outcome() or outcome or self._refusal()
        recorded = self._is_wanted() if outcome is None else is_recorded(self.plan, outcome)
        if outcome is None and self._waits_for_grant(status):
            recorded = False
        context = self._context or (self._kept_alone() if recorded else None)
        if context is not None and recorded:
            self._end_run(context, outcome, status, failure)
        elif self._channel is not None and hosts_a_store():
            self._step(self._channel).is_mine_to_report(status, in_tracker=True)
        if self._channel is not None and hosts_a_store() and not self._is_reporter:
            self._step(self._channel).await_reporter(status)
        if not self._stop.is_set():
            self._stop_thread(HURRY_SECONDS)
        self._over.set()
        self._disconnect()

    def _begin_end(self, status: str, failure: Failure | None) -> tuple[str, Failure | None] | None:
        """How this rank ends, and when it failed; ``None`` if that is done, or if another thread does it."""
        if failure is not None and failure.at_ms is None:
            failure = dataclasses.replace(failure, at_ms=now_ms())
        with self._lock:
            if self._ending is None:
                self._ending, self._ender = (status, failure), threading.current_thread()
                return self._ending
            if self._over.is_set() or self._is_hurried or status != "TERMINATED":
                return None
            self._is_hurried = True
            if self._ending[0] == "COMPLETED":
                self._ending = status, failure
            return self._ending

    def _end_run(self, context: RankContext, outcome: Outcome | None, status: str, failure: Failure | None) -> None:
        """Report the end if that is this rank's part; a run that the tracker does not have is kept before."""
        plan, answer = self.plan, None if outcome is None else outcome.answer
        step = self._step(context.channel)
        supervised = is_supervised(plan)
        cause = None if failure is None else {**failure.to_json(), "status": status}
        request = UpdateStatusRequest.of(answer.run_id if answer else 0, status, cause, plan.request.updated_at)
        hurries = status != "COMPLETED"
        self._send_held(context, time.monotonic() + HURRY_SECONDS if hurries else status_deadline())
        # A signal may interrupt an end that this rank has begun to report, when the store is there no more.
        mine = self._is_reporter = self._is_reporter or step.is_mine_to_report(status, in_tracker=answer is not None)
        if answer is None and mine and not context.outbox.holds_create():
            enqueue_create(plan, creation_of(context, self._describing), context.outbox)
        elif outcome is None and not (mine or supervised) and (kept := self._unsettled.outbox) and kept.holds_create():
            kept.enqueue(request)  # nobody may be left to report it
        if supervised and mine and outcome is None:
            report_run(context, Outcome("offline"), owns=True, is_late=True)
        if supervised and launcher_knows(context, owns=self._is_owner):
            if status == "COMPLETED":
                step.await_given_up()  # the launcher ends the run as soon as its workers have ended
            if failure is not None and self._membership is not None:
                is_first = mine and step.is_connected
                report_end(plan, self._membership, status, dataclasses.replace(failure, is_first=is_first))
        elif mine and step.await_others(status):
            if not self._stop.is_set():
                self._stop_thread(STOP_SECONDS)
            refused = outcome is not None and outcome.kind == "error"  # a refused key stays refused
            busy = self._thread.is_alive() and self._context is not None  # the tracker does not answer that thread
            step.report(None if refused or (busy and answer is None) else self._new_client(), context.outbox, request)
        has_told = self.has_told and (plan.is_rank_zero or status == "COMPLETED")  # else its teller may be dead
        if answer is None and mine and context.outbox.has_pending and not (has_told or context.outbox.trouble):
            told = "this rank has ended, and its run is not in the tracker: kept in %s; `pluto-dist sync` sends it"
            logger.warning(told, plan.settings.spool)

    def _kept_alone(self) -> RankContext | None:
        """This rank as one that is not connected, if it can know its run: else it keeps another one than the others."""
        self._unsettled.keep(None, self._describing, guesses=False)
        if self._unsettled.context is None:
            logger.debug("this rank ended before it was connected to the others, and keeps nothing of the run")
        return self._unsettled.context

    def _step(self, channel: RunChannel) -> ShutdownStep:
        return ShutdownStep(self.plan, channel, self._is_owner, self._settled_at, channel is self._channel)

    def _outcome(self) -> Outcome | None:
        """The outcome so far; ``None`` while there is none."""
        if self.late is not None:
            return self.late
        return self.settled.result() if self.settled.done() and self.settled.exception() is None else None

    def _refusal(self) -> Outcome | None:
        """The error with which another rank ended the creation of the run, if this one did not wait for it."""
        try:
            published = None if self._channel is None else self._channel.outcome()
        except ExchangeError:
            return None
        return published if published is not None and published.kind == "error" else None

    def _waits_for_grant(self, status: str) -> bool:
        """Whether it is not known yet if another launch is alive in the run; what is kept of this one is set aside.

        A launch that has failed waits no longer.
        """
        context = self._context
        try:
            if context is None or not context.channel.waits:
                return False
            if status != "COMPLETED":
                context.channel.claim("failure")
        except ExchangeError:
            return False
        context.outbox.set_aside("it has ended before it was known whether another launch is alive in the run")
        return True

    def _is_wanted(self) -> bool:
        """Whether this rank may still be in a run: none of the errors came up that a script sees."""
        error = self.settled.exception() if self.settled.done() else None
        return error is None or isinstance(error, ExchangeError)

    def abandon(self, failure: Failure | None = None) -> None:
        """End this rank's part and leave the run as it is, for another attempt to continue.

        Args:
            failure: why, for the next attempt's record.
        """
        if os.getpid() == self._pid and self._begin_end("ABANDONED", None) is not None:
            self._stop_thread(HURRY_SECONDS)
            if failure is not None:
                with answers_within(HURRIED_SECONDS):
                    self._tell_next_attempt(failure)
            self._over.set()
            self._disconnect()

    def _tell_next_attempt(self, failure: Failure) -> None:
        try:
            if self._membership is not None and self.agreed.done():
                self._membership.fail(failure)
        except ExchangeError as error:
            logger.debug("the next attempt will not know why this one failed: %s", error)

    def update_config(self, config: str) -> None:
        """Send a change of the config, or keep it; a refused one is a warning. Does nothing in a forked child.

        Args:
            config: a JSON object, as text.
        """
        if os.getpid() != self._pid:
            return
        self._held.append(config)
        if self._context is not None:
            self._send_held(self._context, status_deadline())

    def set_tags(self, tags: tuple[str, ...]) -> None:
        """Replace the run's tags; a warning if the tracker does not take them now. Does nothing in a forked child."""
        outcome = self._last_outcome("COMPLETED") if os.getpid() == self._pid else None
        client = None if outcome is None or outcome.answer is None else self._new_client()
        if client is None or outcome is None or outcome.answer is None:
            logger.warning("the tags %s are not added to a run that is offline", ", ".join(tags))
            return
        try:
            deadline = time.monotonic() + self.plan.settings.timeout
            client.update_tags(UpdateTagsRequest(outcome.answer.run_id, tags), deadline=deadline)
        except TrackerError as error:
            logger.warning("the tags %s were not added: %s", ", ".join(tags), error)
        finally:
            client.close()

    def _send_held(self, context: RankContext, deadline: float) -> None:
        """Send, or keep, the changes of the config that were made so far, once the run is settled or this rank ends."""
        outcome = self._outcome()
        waits = outcome is None and self._ending is None
        if not self._held or waits or (outcome is not None and not is_recorded(self.plan, outcome)):
            return
        client = self._new_client()
        try:
            is_told = self._is_owner or self.attached is not None
            run_id = confirmed_number(context, outcome, client, deadline, is_told=is_told)
            with suppress(IndexError):  # that was all
                while True:
                    context.outbox.send(client, UpdateConfigRequest(run_id, self._held.popleft()), deadline)
        except (TrackerError, RunIdMismatchError) as error:
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
            if isinstance(self._membership.store, FileStore) and self.plan.is_rank_zero:
                self._membership.store.set(PARENT_KEY, "")
            self._membership.store.close()
