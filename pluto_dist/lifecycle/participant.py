"""One rank's part in a run: its thread from joining to the end, and the end itself.

How ranks join is ``joining``; what the user holds is ``run``. Here is the thread that carries it out: it joins,
then beats for the job (leader) or attaches once (every other rank), until :meth:`Participant.end` stops it.
The training's thread never waits for it but in ``init()`` and ``end()``, both bounded.
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
from typing import Any

from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunResponse, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.errors import ExchangeError, PlutoDistError, RunIdMismatchError, TrackerError
from pluto_dist.inventory.probes.process import describe
from pluto_dist.inventory.records import Process
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.attach import ROLL_CALL_SECONDS, attach
from pluto_dist.lifecycle.creation import run_name
from pluto_dist.lifecycle.election import follow, lead
from pluto_dist.lifecycle.heartbeat import Heartbeat
from pluto_dist.lifecycle.inventory_gather import GATHER_SECONDS, gather
from pluto_dist.lifecycle.inventory_report import report, sources_of
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.lifecycle.recovery import hear, keep_trying
from pluto_dist.lifecycle.shutdown import HURRY_SECONDS, Part
from pluto_dist.lifecycle.supervision import is_recorded, is_supervised, note_failure, note_run
from pluto_dist.log import logger
from pluto_dist.rendezvous.connect import hosts_a_store
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import AgreedId, Failure, Outcome
from pluto_dist.rendezvous.run_channel import RunChannel

INVENTORY_SECONDS = 2.0  # how long a process that ends waits for its probes; a stalled driver costs no more
LINGER_SECONDS = 2.0  # how long a rank that hears of an error stays for the others to hear of it
STOP_SECONDS = 12.0  # how long end() waits for this rank's thread: one turn to attach, one request
APART_SECONDS = 0.2  # the same of one that has not met the others: there is nothing of its run to be lost
_OVER = "this rank's part in the run is over"
_PATIENCE = {"COMPLETED": math.inf, "FAILED": 5.0, "TERMINATED": 0.5}


class Participant:
    """This rank's part in one run.

    Args:
        plan: what ``init()`` set out to do.
        meet: gives this process's place among the ranks, or ends when the event is set; called in the thread.
        new_client: a client of the tracker, or ``None`` where there is to be none.

    Attributes:
        agreed: the run's id, once all ranks can know it.
        settled: how the run came into being.
        late: how a run that began offline was joined all the same, once it was.
        attached: the tracker's answer to this rank's own attach, once there is one.
        outbox: what this rank tells the tracker, once the id is agreed.
    """

    def __init__(
        self, plan: Plan, meet: Callable[[threading.Event], Membership], new_client: Callable[[], TrackerClient | None]
    ) -> None:
        self.plan = plan
        self.agreed: Future[AgreedId] = Future()
        self.settled: Future[Outcome] = Future()
        self.late: Outcome | None = None
        self.attached: CreateRunResponse | None = None
        self.outbox: Outbox | None = None
        self._meet, self._new_client = meet, new_client
        self._client = new_client()
        self._exchange: Membership | None = None
        self._run: RunChannel | None = None
        self._settled_at = time.monotonic()
        self._leads = plan.is_rank_zero  # whether this rank beats and ends: the leader, or the one that stood in for it
        self._gathered: frozenset[str] = frozenset()
        self._inventory: threading.Thread | None = None
        self._describing: Callable[[], Process] | None = None
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._ended = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="pluto_dist run", daemon=True)
        self._thread.start()

    @property
    def is_node_leader(self) -> bool:
        """Whether this rank does what one rank of each node does."""
        return self._exchange is not None and self._exchange.is_node_leader

    # The thread.

    def _live(self) -> None:
        try:
            exchange, run, signed, outcome = self._join()
            if outcome.kind == "error":
                self._linger()
            note_run(self.plan, exchange, signed, outcome)
            if not self.settled.done():  # else the end came first
                self.settled.set_result(outcome)
            self._take_part(exchange, run, signed, outcome)
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

    def _take_part(self, exchange: Membership, run: RunChannel, signed: AgreedId, outcome: Outcome) -> None:
        """Beat (the leader) or attach and stand by (every other rank), from when the tracker knows of the run."""
        client, outbox = self._client, self.outbox
        if client is None or outbox is None:
            return
        if outcome.kind == "offline":
            keeps = outbox.has_pending
            late = keep_trying(run, outbox, client, self._stop, outcome) if keeps else hear(run, self._stop)
            if late is None:
                return
            self.late = outcome = late
            note_run(self.plan, exchange, signed, outcome)
        if outcome.answer is None:
            return
        run_id = outcome.answer.run_id
        pulse = Heartbeat(
            self.plan, exchange, run, client, outbox, run_id, self._stop, lambda: is_supervised(self.plan)
        )
        if self._leads:
            pulse.beat(self._gathered)
        else:
            self.attached = attach(self.plan, run, signed, outcome, client, self._stop)
            pulse.failover()

    def _linger(self) -> None:
        """Stay until every rank has heard of the error, within a bound: the store may end with this process."""
        run, until, ranks = self._run, time.monotonic() + LINGER_SECONDS, self.plan.context.topology.world_size
        if run is None or self._exchange is None:
            return
        with suppress(ExchangeError):  # it has ended already
            run.count("heard")
            while run.count("heard", 0) < ranks and time.monotonic() < until and not self._stop.wait(0.02):
                if self.plan.is_rank_zero:  # who came after the error was published waits to hear that it is no old one
                    self._exchange.acknowledge_nodes()

    def _join(self) -> tuple[Membership, RunChannel, AgreedId, Outcome]:
        while True:
            if self.plan.is_rank_zero:
                self._describe()
            exchange = self._exchange = self._meet(self._stop)
            if self._stop.is_set():
                raise ExchangeError(_OVER)  # it met the others too late to begin one
            if not exchange.has_reported:
                exchange.has_reported = True
                self._inventory = report(exchange, self.agreed, self.plan)
            patience = min(ROLL_CALL_SECONDS, self.plan.settings.timeout / 4)
            token = exchange.agree_on_token(self.plan.context.topology.node_count, patience)
            run = self._run = exchange.run(self.plan.nth)
            signed = agree(self.plan, run, token)
            self.outbox = Outbox(self.plan.settings.spool, run_name(self.plan, signed.reference), exchange.token)
            run.count("joined")
            if not self.agreed.done():
                self.agreed.set_result(signed)
            outcome = self._outcome(exchange, run, signed, self.outbox)
            self._settled_at = time.monotonic()
            if outcome is not None:
                return exchange, run, signed, outcome

    def _describe(self) -> Callable[[], Process]:
        """Begin, once, to describe this process for the run that it creates; git needs a moment."""
        self._describing = self._describing or describe(sources_of(self.plan))
        return self._describing

    def _outcome(self, exchange: Membership, run: RunChannel, signed: AgreedId, outbox: Outbox) -> Outcome | None:
        def create() -> Outcome:
            until = min(time.monotonic() + GATHER_SECONDS, self.plan.deadline)
            nodes = gather(self.plan.context.topology, exchange, run, until)
            self._gathered = frozenset(nodes)
            describing = self._describe()
            outcome, self._leads = lead(self.plan, exchange, run, signed, self._client, outbox, nodes, describing)
            return outcome

        if self.plan.is_rank_zero:
            run.claim("leader")
            return create()
        return follow(self.plan, exchange, run, create)

    def _fail(self, error: PlutoDistError) -> None:
        for future in (self.agreed, self.settled):
            if not future.done():
                future.set_exception(error)

    # The end, on the caller's thread.

    def end(self, status: str, cause: dict[str, Any] | None = None) -> None:
        """End this rank's part, and on one rank the run; does nothing the second time, or in a forked child.

        Args:
            status: COMPLETED (which waits for the other ranks), FAILED or TERMINATED.
            cause: what goes into the run's statusMetadata.
        """
        if os.getpid() != self._pid or not self._ended.acquire(blocking=False):
            return
        outcome = self._last_outcome(status)
        self._stop_thread(STOP_SECONDS if status == "COMPLETED" else HURRY_SECONDS)
        outcome = self.late or outcome
        recorded = outcome is not None and is_recorded(self.plan, outcome)
        if is_supervised(self.plan):
            if cause is not None and self._exchange is not None:
                note_failure(self.plan, self._exchange, cause)
        elif self._run is not None and (recorded or hosts_a_store()):
            part = Part(self.plan, self._run, self._leads, self._settled_at)
            if part.is_mine_to_end(status) and recorded and outcome is not None and self.outbox is not None:
                run_id = outcome.answer.run_id if outcome.answer else 0
                client = None if outcome.kind == "error" else self._new_client()  # a key that is refused stays so
                part.post(client, self.outbox, UpdateStatusRequest.of(run_id, status, cause))
        self._disconnect()

    def abandon(self, failure: Failure | None = None) -> None:
        """End this rank's part and leave the run as it is: another attempt will go on with it.

        Args:
            failure: why, for the next attempt's record.
        """
        if os.getpid() == self._pid and self._ended.acquire(blocking=False):
            self._stop_thread(HURRY_SECONDS)
            try:
                if failure is not None and self._exchange is not None and self.agreed.done():
                    self._exchange.fail(failure)
            except ExchangeError as error:
                logger.debug("the next attempt will not know why this one failed: %s", error)
            self._disconnect()

    def update_config(self, run_id: int, config: str) -> None:
        """Send a change of the config, or keep it; one that is refused is a warning. A forked child has no part.

        Args:
            run_id: the tracker's number, 0 where there is none yet.
            config: a JSON object, as text.
        """
        if os.getpid() != self._pid or (outbox := self.outbox) is None:
            return
        client = self._new_client()
        try:
            outbox.send(client, UpdateConfigRequest(run_id, config), time.monotonic() + self.plan.settings.timeout)
        except TrackerError as error:
            logger.warning("a change of the config was not taken: %s", error)
        finally:
            if client is not None:
                client.close()

    def _last_outcome(self, status: str) -> Outcome | None:
        """How the run came into being; a crash waits a little for it, somebody's ctrl-C hardly."""
        left = self.plan.deadline - time.monotonic() + 1
        try:
            return self.settled.result(timeout=max(0.0, min(left, _PATIENCE[status])))
        except (PlutoDistError, FutureTimeoutError):
            return None

    def _stop_thread(self, seconds: float) -> None:
        self._stop.set()
        if self._client is not None:
            self._client.stop()
        self._thread.join(seconds if self._run is not None else APART_SECONDS)
        self._fail(ExchangeError(_OVER))  # who waits for what did not come waits no more
        if self._inventory is not None:
            # A thread that is importing while the interpreter ends holds the import's lock for ever, and whoever
            # imports then (a destructor, say) hangs (CPython 3.10 to 3.13).
            self._inventory.join(INVENTORY_SECONDS)

    def _disconnect(self) -> None:
        if self._exchange is not None:
            self._exchange.store.close()
