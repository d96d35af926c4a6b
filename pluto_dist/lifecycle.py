"""One rank's part in a run: its thread from joining to the end, and the end itself.

How ranks join is ``joining``; what the user holds is ``run``. Here is the thread that carries it out: it joins,
then beats for the job (leader) or attaches once (every other rank), until :meth:`Participation.end` stops it.
The training's thread never waits for it but in ``init()`` and ``end()``, both bounded.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any

from pluto_dist import attempts, launch_folder, notes
from pluto_dist.client import Client
from pluto_dist.console import logger
from pluto_dist.ending import END_SECONDS, HURRY_SECONDS, Part
from pluto_dist.errors import ExchangeError, PlutoDistError, RunIdMismatchError, TrackerError
from pluto_dist.exchange import Exchange, Failure, Outcome, RunExchange, SignedId
from pluto_dist.gathering import GATHER_SECONDS, LateNodes, collect_and_publish, gather, sources_of
from pluto_dist.inventory import Process
from pluto_dist.inventory.creator import describe
from pluto_dist.joining import ROLL_CALL_SECONDS, agree, attach, follow, lead
from pluto_dist.meeting import hosts_a_store
from pluto_dist.plan import Plan
from pluto_dist.wire import CreateRunResponse, UpdateConfigRequest, UpdateStatusRequest

INVENTORY_SECONDS = 2.0  # how long a process that ends waits for its probes; a stalled driver costs no more
LINGER_SECONDS = 2.0  # how long a rank that hears of an error stays for the others to hear of it
STOP_SECONDS = 12.0  # how long end() waits for this rank's thread: one turn to attach, one request
_PATIENCE = {"COMPLETED": math.inf, "FAILED": 5.0, "TERMINATED": 1.0}
SILENT_BEATS = 3.5  # after so many missed heartbeats, and 5 s, another rank beats
_SLICE = 0.5


class Participation:
    """This rank's part in one run.

    Args:
        plan: what ``init()`` set out to do.
        meet: gives this process's place among the ranks, or ends when the event is set; called in the thread.
        new_client: a client of the tracker, or ``None`` where there is to be none.

    Attributes:
        agreed: the run's id, once all ranks can know it.
        settled: how the run came into being.
        attached: the tracker's answer to this rank's own attach, once there is one.
    """

    def __init__(
        self, plan: Plan, meet: Callable[[threading.Event], Exchange], new_client: Callable[[], Client | None]
    ) -> None:
        self.plan = plan
        self.agreed: Future[SignedId] = Future()
        self.settled: Future[Outcome] = Future()
        self.attached: CreateRunResponse | None = None
        self._meet, self._new_client = meet, new_client
        self._client = new_client()
        self._exchange: Exchange | None = None
        self._run: RunExchange | None = None
        self._settled_at = time.monotonic()
        self._leads = plan.is_leader  # whether this rank beats and ends: the leader, or the one that stood in for it
        self._gathered: frozenset[str] = frozenset()
        self._inventory: threading.Thread | None = None
        self._describing: Callable[[], Process] | None = None
        self._cancelled = False
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._ended = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="pluto_dist run", daemon=True)
        self._thread.start()

    # The thread.

    def _live(self) -> None:
        try:
            exchange, run, signed, outcome = self._join()
            if outcome.kind == "error":
                self._linger()
            self._note(exchange, outcome)
            self.settled.set_result(outcome)
            if outcome.answer is None or self._client is None:
                return
            if self._leads:
                self._beat(exchange, run, self._client, outcome.answer.run_id)
            else:
                self.attached = attach(self.plan, run, signed, outcome, self._client, self._stop)
                self._stand_by(exchange, run, self._client, outcome.answer.run_id)
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

    def _linger(self) -> None:
        """Stay until every rank has heard of the error, within a bound: the store may end with this process."""
        run, until, ranks = self._run, time.monotonic() + LINGER_SECONDS, self.plan.context.topology.world_size
        if run is None:
            return
        with suppress(ExchangeError):  # it has ended already
            run.count("heard")
            while run.count("heard", 0) < ranks and time.monotonic() < until and not self._stop.wait(0.02):
                pass

    def _note(self, exchange: Exchange, outcome: Outcome) -> None:
        """Tell the launcher above which run it is, where there is one: the run is its to end."""
        if outcome.answer is not None and exchange.is_node_leader and self._is_supervised():
            answer, node = outcome.answer, self.plan.context.topology.node_rank
            nonce = launch_folder.attempt_nonce(self.plan.context)
            note = notes.RunNote(answer.run_id, answer.display_id or "", self.plan.nth, nonce, node or 0)
            notes.note_run(exchange.folder, note)

    def _is_supervised(self) -> bool:
        return launch_folder.is_supervised(self.plan.context)

    def _join(self) -> tuple[Exchange, RunExchange, SignedId, Outcome]:
        while True:
            if self.plan.is_leader:
                self._describe()
            exchange = self._exchange = self._meet(self._stop)
            if exchange.is_node_leader and not exchange.has_collected:
                exchange.has_collected = True
                self._inventory = collect_and_publish(exchange, self.agreed, sources_of(self.plan))
            patience = min(ROLL_CALL_SECONDS, self.plan.settings.timeout / 4)
            token = exchange.agree_on_token(self.plan.context.topology.node_count, patience)
            run = self._run = exchange.run(self.plan.nth)
            signed = agree(self.plan, run, token)
            run.count("joined")
            if not self.agreed.done():
                self.agreed.set_result(signed)
            outcome = self._outcome(exchange, run, signed)
            self._settled_at = time.monotonic()
            if outcome is not None:
                return exchange, run, signed, outcome

    def _describe(self) -> Callable[[], Process]:
        """Begin, once, to describe this process for the run that it creates; git needs a moment."""
        if self._describing is None:
            self._describing = describe(sources_of(self.plan)) if self._client is not None else Process
        return self._describing

    def _outcome(self, exchange: Exchange, run: RunExchange, signed: SignedId) -> Outcome | None:
        def create() -> Outcome:
            nodes: dict[str, dict[str, Any]] = {}
            if self._client is not None:
                until = min(time.monotonic() + GATHER_SECONDS, self.plan.deadline)
                nodes = gather(self.plan.context.topology, exchange, run, until)
            self._gathered = frozenset(nodes)
            outcome, is_ours = lead(self.plan, exchange, run, signed, self._client, nodes, self._describe())
            self._leads = self._leads or is_ours
            return outcome

        if self.plan.is_leader:
            run.claim("leader")
            return create()
        return follow(self.plan, exchange, run, create)

    def _beat(self, exchange: Exchange, run: RunExchange, client: Client, run_id: int) -> None:
        late = LateNodes(self.plan.context.topology, exchange, self._gathered)
        due = time.monotonic()  # the first at once: another launch that asks must see that this one lives
        looking = late.expected
        while not self._stop.wait(max(0.0, min(_SLICE if looking else math.inf, due - time.monotonic()))):
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + self.plan.settings.heartbeat
                    self._give_sign(run, client, run_id)
                if looking and (more := late.look()):
                    config = json.dumps({"pluto_dist": {attempts.FIELD: {run.recorded_key(): more}}})
                    client.update_config(UpdateConfigRequest(run_id, config), deadline=_soon())
                looking = late.expected
            except ExchangeError:
                looking = False  # the store is gone with its agent; the run, and its signs of life, go on
            except TrackerError as error:
                logger.debug("a sign of life was not taken: %s", error)

    def _give_sign(self, run: RunExchange, client: Client, run_id: int) -> None:
        if not self._is_supervised():  # else the launcher beats, between attempts too
            self._heed(client.heartbeat(run_id, deadline=_soon()).status)
        run.count("beats")

    def _stand_by(self, exchange: Exchange, run: RunExchange, client: Client, run_id: int) -> None:
        """Beat in the leader's place, should it fall silent; one rank of each node looks now and then."""
        if not exchange.is_node_leader and self.plan.context.topology.rank != 1:
            return
        beats, since = -1, time.monotonic()
        while not self._stop.wait(self.plan.settings.heartbeat):
            try:
                if (now := run.count("beats", 0)) != beats:
                    beats, since = now, time.monotonic()
                silent = time.monotonic() - since > SILENT_BEATS * self.plan.settings.heartbeat + 5
                if silent and run.claim(f"sender after {beats}"):
                    self._beat(exchange, run, client, run_id)
            except ExchangeError:
                return  # the store is gone with the leader or its agent, and this attempt with it

    def _heed(self, status: str | None) -> None:
        if status == "CANCELLED" and not self._cancelled:
            self._cancelled = True
            logger.warning("the run was cancelled in the tracker; this job goes on until you stop it")

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
        answer = None if outcome is None else outcome.answer
        if self._is_supervised():
            self._leave_word(cause)
        elif self._run is not None and (answer is not None or hosts_a_store()):
            part = Part(self.plan, self._run, self._leads, self._settled_at)
            if part.is_mine_to_end(status) and answer is not None:
                part.post(self._new_client(), UpdateStatusRequest.of(answer.run_id, status, cause))
        self._disconnect()

    def _leave_word(self, cause: dict[str, Any] | None) -> None:
        """Tell the launcher why this rank ends, for it sees exit codes alone."""
        if cause is not None and self._exchange is not None:
            note = notes.FailureNote(time.time(), cause["rank"], cause["host"], cause["reason"], cause["traceback"])
            notes.note_failure(self._exchange.folder, launch_folder.attempt_nonce(self.plan.context), note)

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

    def update_config(self, request: UpdateConfigRequest) -> None:
        """Send a change of the config; a tracker that does not take it is one warning."""
        client = self._new_client()
        if client is None:
            return
        try:
            client.update_config(request, deadline=time.monotonic() + self.plan.settings.timeout)
        except TrackerError as error:
            logger.warning("a change of the config was not taken: %s", error)
        finally:
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
        self._thread.join(seconds)
        if self._inventory is not None:
            # A thread that is importing while the interpreter ends holds the import's lock for ever, and whoever
            # imports then (a destructor, say) hangs (CPython 3.10 to 3.13).
            self._inventory.join(INVENTORY_SECONDS)

    def _disconnect(self) -> None:
        if self._exchange is not None:
            self._exchange.store.close()


def _soon() -> float:
    return time.monotonic() + END_SECONDS
