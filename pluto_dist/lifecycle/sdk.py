"""The official SDK, pluto-ml, in the run on which the ranks agreed; it is optional.

A plain ``pluto.init()`` after ours finds the run in the environment: :func:`export` writes its id there for this
process and its children, :func:`restore` removes it. ``run.attach_sdk()`` gives an SDK run that is set up for a job of
many ranks (:func:`attach`): it joins instead of failing, samples the system once per node under a label of the node,
keeps its files apart per host and rank, and ends no run.

The SDK by itself (source of 0.0.29): ``init()`` of an id that did not come from the environment raises if the run
exists; ``finish()``, its exit hook and its SIGTERM handler post an end from every rank; each rank sends a heartbeat
every 4 s and samples all GPUs of its node under one name; its files are below the current folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pluto_dist.environments.process_facts import PARENT_VARIABLE
from pluto_dist.errors import ConfigurationError
from pluto_dist.settings.settings import SDK_EXPORTS

if TYPE_CHECKING:
    from pluto_dist.lifecycle.plan import Plan

UPLOAD_SECONDS = 20.0  # how long the end waits for the SDK's uploads
QUIET_SECONDS = 86_400  # between two heartbeats of an SDK run that is to send none


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written to the environment, and what was there before."""

    now: Mapping[str, str]
    before: Mapping[str, str | None]


def export(run_id: str, project: str, parent: str) -> Exported:
    """Write the run's id and project to the environment, for the SDK in this process and in its children.

    ``parent`` describes this process to an ``init()`` in a child, see ``environments.process_facts``.

    ``settings`` ignores what :data:`SDK_EXPORTS` lists, so that a job that this one starts, or the next run of this
    process, does not take it for the user's setting.
    """
    exported = {"PLUTO_RUN_ID": run_id, "PLUTO_PROJECT": project}
    now = {**exported, SDK_EXPORTS: json.dumps(exported), PARENT_VARIABLE: parent}
    before = {name: os.environ.get(name) for name in now}
    os.environ.update(now)
    return Exported(now, before)


def restore(exported: Exported) -> None:
    """Restore the environment, except variables that were changed since."""
    for name, value in exported.now.items():
        if os.environ.get(name) == value:
            before = exported.before[name]
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


class Attached:
    """An SDK run, whose settings have the key: no variable of this package refers to it but through this.

    Args:
        op: returns what ``pluto.init()`` returned; in C, for a frame of Python would have it among its variables.
    """

    __slots__ = ("op",)

    def __init__(self, op: Callable[[], Any]) -> None:
        self.op = op

    def disable_end(self) -> Attached:
        """Make the SDK's ``finish()``, also as its exit hook, close without ending the run."""
        import atexit

        atexit.unregister(self.op().finish)
        self.op().finish = self.op().close
        atexit.register(self.op().close)
        return self

    def release(self) -> None:
        """Close the SDK run once its uploads are done, or after :data:`UPLOAD_SECONDS`.

        In a job of several ranks the SDK itself does not wait; the rest goes on in its own process.
        """
        until = time.monotonic() + UPLOAD_SECONDS
        while time.monotonic() < until and self._uploads() > 0:
            time.sleep(0.1)
        self.op().close()

    def _uploads(self) -> int:
        if getattr(self.op(), "_sync_manager", None) is None:
            return 0
        count: int = self.op()._sync_manager.get_pending_count()
        return count


def attach(plan: Plan, run_id: str, *, samples: bool, arguments: dict[str, Any]) -> Attached:
    """An SDK run in the run ``run_id``, set up for one rank of many.

    Args:
        plan: of this rank.
        run_id: the agreed id, as the SDK takes it: an external id, a number or a display id.
        samples: whether this rank samples its node.
        arguments: of ``pluto.init()``; they override what is set here.

    Raises:
        ConfigurationError: the SDK is not installed.
    """
    try:
        import pluto  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ConfigurationError(
            f"attach_sdk() needs the official SDK, which cannot be imported ({error}): pip install pluto-ml"
        ) from error
    rank = plan.context.topology.rank
    own = {
        "x_sys_label": f"sys/{plan.host}",
        "disable_system_metrics": not samples,
        "x_sigterm_status_enabled": False,
        **({} if samples else {"x_sys_sampling_interval": QUIET_SECONDS}),
    }
    given = dict(arguments)
    settings = {**own, **(given.pop("settings", None) or {})}
    folder = (plan.settings.dir or Path.cwd()) / "pluto-dist" / "sdk" / f"{quote(plan.host, safe='')}-rank{rank}"
    defaults = {"project": plan.request.project_name, "dir": str(folder), "run_id": run_id, "resume": True}
    if "dir" not in given:
        folder.mkdir(parents=True, exist_ok=True)
    return Attached(repeat(pluto.init(settings=settings, **{**defaults, **given})).__next__).disable_end()
