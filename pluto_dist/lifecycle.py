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
from typing import Any

from pluto_dist import attempts
from pluto_dist.client import Client
from pluto_dist.console import logger
from pluto_dist.errors import ExchangeError, PlutoDistError, TrackerError
from pluto_dist.exchange import Exchange, Failure, Outcome, RunExchange, SignedId
from pluto_dist.gathering import GATHER_SECONDS, LateNodes, collect_and_publish, gather
from pluto_dist.joining import ROLL_CALL_SECONDS, agree, attach, follow, lead
from pluto_dist.plan import Plan
from pluto_dist.wire import CreateRunResponse, UpdateConfigRequest, UpdateStatusRequest

JOIN_GRACE = 10.0  # a rank that has not called init() this long after the leader is not waited for at the end
HURRY_SECONDS = 2.0  # the same for a process that is being interrupted or dies of an exception
STOP_SECONDS = 12.0  # how long end() waits for this rank's thread: one turn to attach, one request
END_SECONDS = 10.0  # how long the end state is tried
_PATIENCE = {"COMPLETED": math.inf, "FAILED": 5.0, "TERMINATED": 1.0}
_SLICE = 0.5


class Participation:
    """This rank's part in one run.

    Args:
        plan: what ``init()`` set out to do.
        meet: gives this process's place among the ranks; called in the thread, for it may take a while.
        new_client: a client of the tracker, or ``None`` where there is to be none.

    Attributes:
        agreed: the run's id, once all ranks can know it.
        settled: how the run came into being.
        attached: the tracker's answer to this rank's own attach, once there is one.
    """

    def __init__(self, plan: Plan, meet: Callable[[], Exchange], new_client: Callable[[], Client | None]) -> None:
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
            self.settled.set_result(outcome)
            if outcome.answer is None or self._client is None:
                return
            if self._leads:
                self._beat(exchange, run, self._client, outcome.answer.run_id)
            else:
                self.attached = attach(self.plan, run, signed, outcome, self._client, self._stop)
        except PlutoDistError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # border: a bug in this thread must not leave init() waiting
            logger.debug("the run's thread failed", exc_info=True)
            self._fail(ExchangeError(f"pluto_dist failed on this rank: {type(error).__name__}: {error}"))
        finally:
            if self._client is not None:
                self._client.close()

    def _join(self) -> tuple[Exchange, RunExchange, SignedId, Outcome]:
        while True:
            exchange = self._exchange = self._meet()
            if exchange.is_node_leader and not exchange.has_collected:
                exchange.has_collected = True
                collect_and_publish(exchange, self.agreed)
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

    def _outcome(self, exchange: Exchange, run: RunExchange, signed: SignedId) -> Outcome | None:
        def create() -> Outcome:
            nodes: dict[str, dict[str, Any]] = {}
            if self._client is not None:
                until = min(time.monotonic() + GATHER_SECONDS, self.plan.deadline)
                nodes = gather(self.plan.context.topology, exchange, run, until)
            self._gathered = frozenset(nodes)
            outcome, is_ours = lead(self.plan, exchange, run, signed, self._client, nodes)
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
                if looking and (more := late.look()):
                    config = json.dumps({"pluto_dist": {attempts.FIELD: {run.recorded_key(): more}}})
                    client.update_config(UpdateConfigRequest(run_id, config), deadline=_soon())
                looking = late.expected
                if time.monotonic() >= due:
                    due = time.monotonic() + self.plan.settings.heartbeat
                    self._heed(client.heartbeat(run_id, deadline=_soon()).status)
            except ExchangeError:
                looking = False  # the store is gone with its agent; the run, and its signs of life, go on
            except TrackerError as error:
                logger.debug("a sign of life was not taken: %s", error)

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
        if outcome is not None and outcome.answer is not None and self._is_mine_to_end(status):
            self._post(UpdateStatusRequest(outcome.answer.run_id, status, json.dumps(cause) if cause else None))
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

    def _is_mine_to_end(self, status: str) -> bool:
        """Whether this rank tells the tracker; before it does, all others are done and nobody attaches any more."""
        run = self._run
        if run is None:
            return False
        try:
            if status == "COMPLETED":
                run.count("left")
                if not self._leads or not self._everyone_left(run):
                    return False
            elif not run.claim("failure"):
                return False  # another rank failed first, and says so
            self._close(run, END_SECONDS if status == "COMPLETED" else HURRY_SECONDS)
        except ExchangeError as error:
            logger.debug("the other ranks cannot be asked at the end: %s", error)
            return self._leads
        return True

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

    def _disconnect(self) -> None:
        if self._exchange is not None:
            self._exchange.store.close()

    def _everyone_left(self, run: RunExchange) -> bool:
        """Wait, bounded, until the other ranks are done; False where one of them failed."""
        others = self.plan.context.topology.world_size - 1
        until = time.monotonic() + self.plan.settings.timeout
        while others and time.monotonic() < until:
            joined, left = run.count("joined", 0) - 1, run.count("left", 0) - 1
            if run.claimed("failure"):
                break
            if left >= joined and (joined >= others or time.monotonic() > self._settled_at + JOIN_GRACE):
                break
            time.sleep(0.05)
        return not run.claimed("failure")

    def _close(self, run: RunExchange, seconds: float) -> None:
        """From here on nobody attaches; wait for the attaches that had begun."""
        run.claim("closed")
        until = time.monotonic() + seconds
        while run.count("attach over", 0) < run.count("attach begun", 0) and time.monotonic() < until:
            time.sleep(0.02)

    def _post(self, request: UpdateStatusRequest) -> None:
        client = self._new_client()
        if client is None:
            return
        try:
            if not self._is_superseded(client, int(request.run_id)):
                client.update_status(request, deadline=_soon())
        except TrackerError as error:
            logger.warning("the run's end (%s) could not be told to the tracker: %s", request.status, error)
        finally:
            client.close()

    def _is_superseded(self, client: Client, run_id: int) -> bool:
        """Whether a later attempt lives in the run, which is then that one's to end.

        After a split of the nodes an old rank 0 may live on beside the new one (observed with torch 2.13).
        """
        if self._run is None or (self.plan.context.topology.node_count or 1) == 1:
            return False
        try:
            state = client.details(run_id, deadline=_soon())
            last = None if state is None else attempts.newest(attempts.recorded(state.config))
            return last is not None and last["key"] != self._run.recorded_key()
        except (TrackerError, ExchangeError) as error:
            logger.debug("whether a later attempt goes on with the run cannot be asked: %s", error)
            return False


def _soon() -> float:
    return time.monotonic() + END_SECONDS
