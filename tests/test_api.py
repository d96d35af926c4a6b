"""A world of one without torchrun: plain scripts as their own processes against the embedded tracker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from client.misbehaving import Misbehaving, reply_json
from lifecycle.ranks import context_of, member_of, plan_of
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import Reference
from pluto_dist.lifecycle.election import create_as_owner
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.server import LocalServer

FIELDS = ("id", "run_id", "run_id_source", "display_id", "number", "url", "project", "resumed", "mode")
REPORT = f"""
import json, sys
def report(run=None, **more):
    seen = {{}} if run is None else {{name: getattr(run, name) for name in {FIELDS!r}}}
    print("REPORT " + json.dumps(seen | more), flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
def project() -> str:
    """A project that no other test uses."""
    return f"p{uuid.uuid4().hex[:10]}"


@dataclass
class Ended:
    """A script that has ended."""

    code: int
    out: str
    err: str

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(line[7:]) for line in self.out.splitlines() if line.startswith("REPORT ")]

    @property
    def said(self) -> list[str]:
        """What the package said; another thread of the script may have written into the same line."""
        return re.findall(r"pluto_dist: (.*)", self.err)


@pytest.fixture
def environ(server: LocalServer, project: str, tmp_path: Path) -> dict[str, str]:
    """A user's environment, without launcher and without what this machine has set for the tracker."""
    unwanted = ("PLUTO_", "MLOP_", "PET_", "TORCHELASTIC_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        kept.pop(name, None)
    return {**kept, **server.environ(kept), "PLUTO_PROJECT": project, "HOME": str(tmp_path)}


@pytest.fixture
def python(environ: dict[str, str], tmp_path: Path) -> Callable[..., Ended]:
    """Runs ``python train.py`` with the given source; ``None`` takes a variable away."""

    def run(source: str, seconds: float = 60, **changes: str | None) -> Ended:
        script = tmp_path / "train.py"
        script.write_text(REPORT + source)
        merged = {name: value for name, value in {**environ, **changes}.items() if value is not None}
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, env=merged, cwd=tmp_path, capture_output=True, text=True, timeout=seconds, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def ask(server: LocalServer) -> Iterator[Callable[..., Any]]:
    """The tracker's answer to a request."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {server.api_key}"

        def answer(path: str, body: dict[str, Any] | None = None) -> Any:
            method = "GET" if body is None else "POST"
            got = session.request(method, server.url + path, json=body, timeout=20)
            assert got.status_code == 200, got.text
            return got.json()

        yield answer


@pytest.fixture
def runs(ask: Callable[..., Any], project: str) -> Callable[[], list[dict[str, Any]]]:
    """All runs of this test's project, whole, oldest first."""

    def listed() -> list[dict[str, Any]]:
        found = ask(f"/api/runs/list?projectName={project}")["runs"]
        return [ask(f"/api/runs/details/{run['id']}") for run in reversed(found)]

    return listed


def cause_of(run: dict[str, Any]) -> dict[str, Any]:
    metadata = run["statusMetadata"]
    return json.loads(metadata) if isinstance(metadata, str) else metadata


def test_a_plain_script(python, runs, server, project):
    """init() is one create; the run ends COMPLETED with the process, its config whole, and one line is said."""
    began = len(server.requests())
    config = {"lr": 0.1, "nested": {"a": [1, None, True], "é": "作"}, "big": 2**40}
    done = python(
        "import pluto_dist\n"
        f"run = pluto_dist.init(name='ddp', config={config!r}, tags='cpu')\n"
        "assert pluto_dist.init() is run and pluto_dist.init(name='ddp') is run\n"
        "report(run, torch='torch' in sys.modules, rank=run.rank, world=run.world_size, leader=run.is_leader)\n"
        "assert 'Run' in repr(run)\n"
    )
    assert (done.code, done.out.count("REPORT")) == (0, 1), done.err
    (run,), (seen,) = runs(), done.reports
    assert (run["name"], run["status"], run["tags"]) == ("ddp", "COMPLETED", ["cpu"])
    ours = run["config"].pop("pluto_dist")
    assert run["config"] == config
    assert (ours["run_id"], ours["world_size"], ours["launcher"]) == (run["externalId"], 1, "single")
    assert re.fullmatch(r"single-[a-z2-7]{20}", run["externalId"])
    assert seen["run_id"] == run["externalId"]
    assert (seen["id"], seen["number"], seen["resumed"], seen["mode"]) == (int(run["id"]), 1, False, "online")
    assert seen["url"].startswith(server.url)
    assert (seen["torch"], seen["rank"], seen["world"], seen["leader"]) == (False, 0, 1, True)
    assert run["systemMetadata"]["cluster"]["nodes_reported"] == 1
    assert len(done.said) == 1
    assert seen["display_id"] in done.said[0]
    calls = [line.split('"')[1].split(" ")[1] for line in server.requests()[began:] if "/list" not in line]
    others = [call for call in calls if "/details/" not in call and "/trigger" not in call]
    assert others == ["/api/runs/create", "/api/runs/status/update"]


def test_several_runs_in_one_process(python, runs):
    """with ends a run; the next init() begins another; finish() twice is once; sys.exit(0) completes."""
    done = python(
        "import pluto_dist\n"
        "with pluto_dist.init(name='first') as run: report(run)\n"
        "assert run.finished\n"
        "second = pluto_dist.init(name='second', wait=False)\n"
        "report(second)\n"
        "second.update_config({'accuracy': 0.5})\n"
        "second.finish(); second.finish(); run.finish()\n"
        "second.update_config({'accuracy': 'too late'})\n"
        "with pluto_dist.init(name='third'): sys.exit(0)\n"
    )
    assert done.code == 0, done.err
    assert [(run["name"], run["status"]) for run in runs()] == [(n, "COMPLETED") for n in ("first", "second", "third")]
    assert [report["number"] for report in done.reports] == [1, 2]
    assert runs()[1]["config"]["accuracy"] == 0.5
    assert [change["to"] for change in runs()[1]["statusHistory"]] == ["RUNNING", "COMPLETED"]


CRASHES = {
    "uncaught": ("raise ValueError('boom')", 1, "FAILED", "ValueError: boom"),
    "in with": ("with run: raise ValueError('boom')", 1, "FAILED", "ValueError: boom"),
    "exit code": ("with run: sys.exit(3)", 3, "FAILED", "SystemExit: 3"),
    "interrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "TERMINATED", "KeyboardInterrupt"),
    "interrupt in with": ("with run: raise KeyboardInterrupt", -signal.SIGINT, "TERMINATED", "KeyboardInterrupt"),
}


@pytest.mark.parametrize(("crash", "code", "status", "reason"), CRASHES.values(), ids=CRASHES)
def test_how_a_crash_is_recorded(python, runs, server, crash, code, status, reason):
    """The run tells what happened where, without the key; the user sees the traceback and exit code of Python."""
    done = python(
        "import atexit, os, pluto_dist\n"
        "before = sys.excepthook\n"
        "sys.excepthook = lambda *what: (before(*what), print('HOOK', file=sys.stderr))\n"
        "atexit.register(lambda: print('ATEXIT', file=sys.stderr))\n"
        "run = pluto_dist.init()\n"
        "def train(secret):\n"
        f"    {crash}\n"
        "train(os.environ['PLUTO_API_KEY'])\n"
    )
    (run,) = runs()
    cause = cause_of(run)
    assert (done.code, run["status"]) == (code, status), done.err
    assert (cause["reason"], cause["rank"], cause["host"]) == (reason, 0, socket.gethostname())
    assert "in train" in cause["traceback"]
    assert server.api_key not in json.dumps(run)
    assert done.err.count("ATEXIT") == 1
    if "exit" not in crash:
        assert done.err.count("Traceback (most recent call last)") == 1
        assert reason in done.err
        assert done.err.count("HOOK") == 1


def test_a_key_in_an_exception_is_masked(python, runs, server):
    """An exception whose words hold the key leaves it out of the tracker, cut or whole."""
    python(
        "import os, pluto_dist\n"
        "run = pluto_dist.init()\n"
        "key = os.environ['PLUTO_API_KEY']\n"
        "raise ValueError('x' * (500 - len('ValueError: ') - len(key) + 2) + key)\n"
    )
    (run,) = runs()
    assert run["status"] == "FAILED"
    assert server.api_key[:-4] not in json.dumps(run["statusMetadata"])


def test_a_caught_exception_ends_nothing(python, runs):
    """An exception that the script handles outside of with is the script's; the run goes on and completes."""
    done = python(
        "import pluto_dist\n"
        "run = pluto_dist.init()\n"
        "try: raise ValueError('handled')\n"
        "except ValueError: pass\n"
        "assert not run.finished\n"
    )
    assert done.code == 0, done.err
    assert [run["status"] for run in runs()] == ["COMPLETED"]


def test_a_forked_child_has_no_part(python, runs):
    """A forked child that exits, crashes, or calls finish() and init() neither ends the run nor runs our hooks."""
    done = python(
        "import os, pluto_dist\n"
        "run = pluto_dist.init(name='parent')\n"
        "for how in ('exit', 'crash', 'finish', 'init', 'with'):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        if how == 'crash': raise ValueError('in the child')\n"
        "        if how == 'finish': run.finish()\n"
        "        if how == 'init': report(again=pluto_dist.init(name='child').mode)\n"
        "        if how == 'with':\n"
        "            with run: raise ValueError('in the child too')\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "run.update_config({'after': 1})\n"
        "report(run, finished=run.finished)\n"
    )
    assert done.code == 0, done.err
    (run,) = runs()
    assert done.reports[0] == {"again": "disabled"}
    assert done.reports[1]["finished"] is False
    assert (run["name"], run["status"], run["config"]["after"]) == ("parent", "COMPLETED", 1)
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


OFF = {
    "no key": ({"PLUTO_API_KEY": None}, "offline", "no API key"),
    "empty key": ({"PLUTO_API_KEY": ""}, "offline", "no API key"),
    "mode offline": ({"PLUTO_DIST_MODE": "offline"}, "offline", "mode is offline"),
    "mode disabled": ({"PLUTO_DIST_MODE": "disabled"}, "disabled", None),
    "disabled in a broken launch": ({"PLUTO_DIST_MODE": "disabled", "RANK": "7", "WORLD_SIZE": "2"}, "disabled", None),
}


@pytest.mark.parametrize(("changes", "mode", "said"), OFF.values(), ids=OFF)
def test_without_a_tracker(python, server, changes, mode, said):
    """No key or not to be asked: nothing is sent, one line at most is said, and the script is as it would be."""
    before = len(server.requests())
    done = python(
        "import pluto_dist\n"
        "with pluto_dist.init(config={'lr': 1}) as run:\n"
        "    run.update_config({'x': 1})\n"
        "    report(run, loaded=[m for m in ('torch', 'pynvml') if m in sys.modules])\n",
        **changes,
    )
    (seen,) = done.reports
    assert (done.code, seen["mode"], seen["id"], seen["url"]) == (0, mode, None, None), done.err
    assert "torch" not in seen["loaded"]
    assert len(server.requests()) == before
    assert len(done.said) == (said is not None), done.err
    if said:
        assert said in done.said[0]
        assert seen["run_id"].startswith("single-")


@pytest.mark.parametrize("crash", ["pass", "raise ValueError('boom')"], ids=["completes", "fails"])
def test_a_tracker_that_is_down(python, crash):
    """One warning, within the timeout, and the script ends as it would have ended."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        began = time.monotonic()
        done = python(
            f"import pluto_dist\nrun = pluto_dist.init()\nreport(run)\n{crash}\n",
            PLUTO_URL_API=url,
            PLUTO_URL_APP=url,
            PLUTO_URL_PY=url,
            PLUTO_DIST_TIMEOUT="2",
        )
    assert time.monotonic() - began < 60
    assert done.code == (crash != "pass"), done.err
    assert done.reports[0]["mode"] == "offline"
    assert len(done.said) == 1, done.err
    assert "going on offline" in done.said[0]


WRONG_KEY = "mlps_" + "w7" * 20


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_wrong_key(python, runs, on_error):
    """AuthenticationError at once (a warning and offline if so asked), and the key is nowhere in the output."""
    began = time.monotonic()
    done = python(
        "import time, pluto_dist\n"
        "began = time.monotonic()\n"
        "try:\n"
        "    run = pluto_dist.init()\n"
        "except pluto_dist.errors.AuthenticationError as error:\n"
        "    report(seconds=time.monotonic() - began, error=str(error))\n"
        "    raise\n"
        "report(run)\n",
        PLUTO_API_KEY=WRONG_KEY,
        PLUTO_DIST_ON_ERROR=on_error,
        PLUTO_DIST_TIMEOUT="300",
    )
    assert time.monotonic() - began < 120
    assert WRONG_KEY not in done.out + done.err
    assert runs() == []
    if on_error == "warn":
        assert (done.code, done.reports[0]["mode"]) == (0, "offline"), done.err
        assert len(done.said) == 1
    else:
        assert done.code == 1
        assert done.reports[0]["seconds"] < 30
        assert "PLUTO_API_KEY" in done.reports[0]["error"]


@pytest.mark.parametrize("key", [WRONG_KEY + "\n", WRONG_KEY + "\u200b"], ids=["line break", "zero width"])
def test_a_key_that_cannot_be_sent_is_not_shown(python, key):
    """A key that no header can carry is nowhere in the output either."""
    done = python("import pluto_dist\npluto_dist.init()\n", PLUTO_API_KEY=key, PLUTO_DIST_TIMEOUT="3")
    assert WRONG_KEY not in done.out + done.err


PROBLEMS = """
import pluto_dist
def problems(**arguments):
    try: pluto_dist.init(**arguments)
    except pluto_dist.errors.ConfigurationError as error: return str(error)
    except Exception as error: return f"{type(error).__name__}: {error}"
    return "none"
"""


def test_all_problems_at_once_and_nothing_sent(python, server):
    """Whatever is wrong with the arguments is ConfigurationError before anything is sent, all of it in one list."""
    before = len(server.requests())
    done = python(
        PROBLEMS + "bad = {'name': 'n' * 300, 'tags': ['group:a', 'group:b', 'x\\0']}\n"
        "report(\n"
        "    request=problems(**bad, fork_run_id=1),\n"
        "    settings=problems(timeout=-1, mode='later', project='', on_error='no'),\n"
        "    types=problems(name=5, created_at='now', inherit_config=1),\n"
        ")\n"
    )
    assert done.code == 0, done.err
    assert len(server.requests()) == before
    assert {name: len(text.splitlines()) - 1 for name, text in done.reports[0].items()} == {
        "request": 4,
        "settings": 4,
        "types": 3,
    }


def test_a_config_that_json_cannot_hold(python, runs):
    """Odd values in a config cost a warning, not the run: what can be carried is."""
    done = python(
        "import pluto_dist\n"
        "deep = []\n"
        "for _ in range(100_000): deep = [deep]\n"
        "loop = {}; loop['self'] = loop\n"
        "odd = {'f': print, 'nan': float('nan'), 'd': deep, 'l': loop, (1, 2): 3, 's': '\\ud800\\0', 'fine': 1}\n"
        "pluto_dist.init(config=odd)\n"
    )
    assert done.code == 0, done.err
    (run,) = runs()
    assert (run["status"], run["config"]["fine"]) == ("COMPLETED", 1)


def test_settings_and_arguments_are_told_together(python):
    """One error lists what is wrong with the settings and what is wrong with the run."""
    done = python(PROBLEMS + "report(both=problems(timeout=-1, name='n' * 300))\n")
    assert "timeout" in done.reports[0]["both"]
    assert "runName has 300 characters" in done.reports[0]["both"]


@pytest.mark.parametrize("argument", ["tags=5", "tags=[1, None]", "config=5"])
def test_arguments_of_other_types(python, argument):
    """An argument of a type that init() does not take is a ConfigurationError that names it."""
    done = python(PROBLEMS + f"report(told=problems(mode='offline', {argument}))\n")
    told = done.reports[0]["told"]
    assert argument.partition("=")[0] in told
    assert "Error: " not in told


def test_a_wrong_argument_only_warns_if_so_asked(python):
    """on_error="warn": a wrong argument is a warning, and the script goes on offline."""
    done = python("import pluto_dist\nreport(pluto_dist.init(name='n' * 300, on_error='warn'))\n")
    assert done.code == 0, done.err
    assert done.reports[0]["mode"] == "offline"


def test_other_arguments_while_a_run_is_open(python, runs):
    """init() with other arguments returns the open run, and says so once."""
    done = python(
        "import pluto_dist\n"
        "run = pluto_dist.init(name='one')\n"
        "assert pluto_dist.init(name='another', config={'lr': 2}) is run\n"
    )
    assert done.code == 0, done.err
    assert [run["name"] for run in runs()] == ["one"]
    assert len(done.said) == 2, done.err


def test_a_run_that_exists(python, runs, ask, project):
    """run_id continues what has it, as external id, number or display id; resume=False makes that an error."""
    first = python("import pluto_dist\nreport(pluto_dist.init(run_id='job-7', config={'a': 1}))\n").reports[0]
    assert first["run_id_source"].startswith("run_id")
    done = python(
        "import pluto_dist\n"
        "def ids(**arguments):\n"
        "    with pluto_dist.init(**arguments) as run: report(run)\n"
        "ids(run_id='job-7', config={'b': 2})\n"
        f"ids(run_id={first['id']}, config={{'c': 3}})\n"
        f"ids(run_id='{first['id']}')\n"
        f"ids(run_id='{first['display_id']}', config={{'d': 4}})\n"
        "for fresh in ('job-7', 'job-8', 'job-8'):\n"
        "    try: ids(run_id=fresh, resume=False)\n"
        "    except pluto_dist.errors.RunExistsError as error: report(error=str(error))\n"
        "for missing in ('987654321', 'ZZZ-99'):\n"
        "    try: ids(run_id=missing)\n"
        "    except pluto_dist.errors.RequestRefusedError as error: report(status=error.status or 404)\n",
        PLUTO_RUN_ID="overruled",
    )
    assert done.code == 0, done.err
    assert [report.get("id") for report in done.reports[:4]] == [first["id"]] * 4
    assert [report["resumed"] for report in done.reports[:4]] == [True] * 4
    refused, created, again, *missing = done.reports[4:]
    assert "job-7" in refused["error"]
    assert first["display_id"] in refused["error"]
    assert (created["run_id"], created["number"]) == ("job-8", 2)
    assert "job-8" in again["error"]
    assert missing == [{"status": 404}, {"status": 404}]
    assert [run["externalId"] for run in runs()] == ["job-7", "job-8"]
    config = runs()[0]["config"]
    assert {name: config[name] for name in "abcd"} == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_resume_needs_a_name(python, server):
    """resume=True in a process that nothing names is an error that says what to set, before anything is sent."""
    before = len(server.requests())
    done = python("import pluto_dist\npluto_dist.init()\n", PLUTO_DIST_RESUME="1")
    assert done.code == 1
    assert "NoStableIdError" in done.err
    assert "PLUTO_RUN_ID" in done.err
    assert len(server.requests()) == before


LOST_PLACES = {
    "RANK of a node": ({"RANK": "1"}, "LauncherError"),
    "ranks without a store": ({"RANK": "0", "WORLD_SIZE": "2"}, "NoSharedRunError"),
}


@pytest.mark.parametrize(("changes", "error"), LOST_PLACES.values(), ids=LOST_PLACES)
def test_a_place_that_is_unknown(python, runs, changes, error):
    """An environment that does not tell this rank's place or company is an error, never a run of its own."""
    done = python("import pluto_dist\npluto_dist.init()\n", **changes)
    assert done.code == 1
    assert error in done.err
    assert runs() == []


def test_a_server_that_sends_garbage(python):
    """Something that is no tracker: one warning, offline, exit code 0."""
    with Misbehaving(reply_json({"hello": "world"})) as strange:
        done = python("import pluto_dist\nreport(pluto_dist.init())\n", PLUTO_URL_API=strange.url)
    assert (done.code, done.reports[0]["mode"]) == (0, "offline"), done.err
    assert len(done.said) == 1


def test_heartbeats_while_the_run_is_open(python, server):
    """A run that lives gives signs of life, and none after its end."""
    before = len(server.requests())
    done = python(
        "import time, pluto_dist\nrun = pluto_dist.init()\ntime.sleep(0.8)\nrun.finish()\n", PLUTO_DIST_HEARTBEAT="0.2"
    )
    assert done.code == 0, done.err
    posts = [line.split('"')[1] for line in server.requests()[before:]]
    beats = [n for n, line in enumerate(posts) if "/api/runs/trigger" in line]
    (end,) = [n for n, line in enumerate(posts) if "/status/update" in line]
    assert 1 <= len(beats) <= 6
    assert max(beats) < end


def test_a_cancelled_run_is_not_revived_by_a_restart(server, ask, project):
    """The leader of a later attempt of the same launch finds its run cancelled: an error, and nothing is created."""
    environ = {"PLUTO_API_KEY": server.api_key, "PLUTO_URL_API": server.url, "PLUTO_PROJECT": project}
    store = LocalStore()

    def attempt(nonce: str) -> Any:
        plan = plan_of(environ)
        client = TrackerClient(server.url, server.url, plan.settings.api_key, user_agent="test")  # type: ignore[arg-type]
        try:
            return create_as_owner(context_of(plan, member_of(store, nonce=nonce), client=client), {}).outcome
        finally:
            client.close()

    first = attempt("monday")
    second = attempt("tuesday")
    assert (first.kind, first.resumed) == ("online", False)
    assert (second.kind, second.resumed, second.answer.run_id) == ("online", True, first.answer.run_id)
    ask("/api/runs/status/update", {"runId": first.answer.run_id, "status": "CANCELLED"})
    third = attempt("wednesday")
    assert (third.kind, third.error) == ("error", "RunCancelledError")
    assert ask(f"/api/runs/details/{first.answer.run_id}")["status"] == "CANCELLED"
    assert Reference("external id", ask(f"/api/runs/details/{first.answer.run_id}")["externalId"])


def test_a_process_that_ends_at_once(python):
    """A script that is over before its probes are ends all the same, also where a destructor imports at exit."""
    for _ in range(3):
        done = python(
            "import pluto_dist\n"
            "class Late:\n    def __del__(self):\n        import colorsys\n"
            "late = Late()\n"
            "pluto_dist.init(mode='offline')\n"
        )
        assert done.code == 0, done.err
