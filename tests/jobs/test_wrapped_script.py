"""Scripts that know nothing of the tracker, started by torchrun through ``-m pluto_dist``, against the real tracker."""

from __future__ import annotations

import re
import socket
import sys

import pytest

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
OWN = ("--project", "wrapped")


def command(*words: str, own: tuple[str, ...] = OWN, options: tuple[str, ...] = ()) -> list[str]:
    """``torchrun OPTIONS -m pluto_dist OWN WORDS``."""
    return [*TORCHRUN, *options, "-m", "pluto_dist", *own, *words]


def start(torchrun, words: list[str], environ: dict[str, str]):
    return torchrun.finish(torchrun.start_command(words, environ))


def failure(tracker) -> dict:
    """What the one run says of its end."""
    (run,) = tracker.runs("wrapped")
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "FAILED"]
    return run["statusMetadata"]


DDP = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from reporting import report

def main():
    dist.init_process_group("gloo")
    data = TensorDataset(torch.ones(16, 4))
    loader = DataLoader(data, batch_size=2, sampler=DistributedSampler(data), num_workers=1)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    for (batch,) in loader:
        model(batch).sum().backward()
    report(argv=sys.argv, main=__file__, first=sys.path[0], name=type(model.module).__module__)
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""


def test_a_script_that_knows_nothing(tracker, torchrun):
    """A plain DDP script is one run with all its ranks, named and described from the command line."""
    script = torchrun.write(DDP)
    own = ("--project", "wrapped", "--name", "ddp", "--tag", "cpu", "--tag", "ddp", "--config", "lr=0.1")
    job = start(torchrun, command(script, "--lr", "0.1", "--name", "x", own=own), tracker.environ())

    assert job.returncode == 0, job.output
    assert [report["rank"] for report in job.reports] == [0, 1]
    for report in job.reports:
        assert (report["argv"], report["main"]) == ([script, "--lr", "0.1", "--name", "x"], script)
        assert report["first"] == str(torchrun.folder)
    (run,) = tracker.runs("wrapped")
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert (run["name"], run["tags"], run["config"]["lr"], len(run["attaches"])) == ("ddp", ["cpu", "ddp"], 0.1, 2)


RAISES = """
import os, time

def load(path):
    raise FileNotFoundError("no shard at " + path)

if os.environ["RANK"] == "1":
    load("/data/7")
time.sleep(60)  # until the agent ends it
"""


def test_an_exception_on_one_rank(tracker, torchrun):
    """The run and torchrun both tell the root cause: exception, rank, and a traceback without a frame of ours."""
    script = torchrun.write(RAISES)
    job = start(torchrun, command(script), tracker.environ())

    assert job.returncode == 1
    cause = failure(tracker)
    assert (cause["reason"], cause["rank"]) == ("FileNotFoundError: no shard at /data/7", 1)
    assert cause["host"] == socket.gethostname()
    shown = (
        "Traceback (most recent call last):\n"
        f'  File "{script}", line 8, in <module>\n    load("/data/7")\n'
        f'  File "{script}", line 5, in load\n    raise FileNotFoundError("no shard at " + path)\n'
        "FileNotFoundError: no shard at /data/7"
    )
    assert cause["traceback"] == shown
    root = job.output.partition("Root Cause")[2]
    assert re.search(r"rank\s+: 1 ", root)
    assert re.search(r"error_file: /.*error\.json", root)
    if sys.version_info >= (3, 11):
        assert "traceback : " + shown.replace("\n", "\n  ") in root
    assert "FileNotFoundError: no shard at /data/7" in root


EXITS = """
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit(eval(os.environ["CODE"]))
if os.environ["CODE"] not in ("0", "None"):
    time.sleep(60)  # until the agent ends it
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "reason"),
    [
        ("3", 3, "SystemExit: 3"),
        ("'no data in /data'", 1, "SystemExit: no data in /data"),
        ("0", 0, None),
        ("None", 0, None),
    ],
)
@pytest.mark.exhaustive
def test_an_exit_code(tracker, torchrun, code, exit_code, reason):
    """An exit code other than 0 is a failure of the run; 0 and None are its normal end."""
    job = start(torchrun, command(torchrun.write(EXITS)), tracker.environ() | {"CODE": code})

    assert (job.returncode == 0) == (exit_code == 0), job.output
    if reason is None:
        (run,) = tracker.runs("wrapped")
        assert run["status"] == "COMPLETED"
    else:
        cause = failure(tracker)
        assert (cause["reason"], cause["rank"]) == (reason, 1)
        assert re.search(rf"exitcode\s+: {exit_code} ", job.output)
        assert reason in job.output.partition("Root Cause")[2]


INIT = """
import sys, pluto_dist
from reporting import report
with pluto_dist.init(project="other", name="mine", config={"lr": 1, "optim": {"name": "adam"}}, tags=["cpu"]) as run:
    report(run, argv=sys.argv[1:])
"""
HIDDEN = INIT.replace(
    "import sys, pluto_dist", "import importlib, sys\ndist = importlib.import_module('pluto_' + 'dist')"
)
HIDDEN = HIDDEN.replace("pluto_dist.init", "dist.init")


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(TORCHRUN, marks=pytest.mark.exhaustive),
        (*TORCHRUN, "-m", "pluto_dist"),
        pytest.param(
            (sys.executable, "-m", "pluto_dist.cli", "run", "--nproc-per-node=2"), marks=pytest.mark.exhaustive
        ),
    ],
    ids=["torchrun", "-m pluto_dist", "pluto-dist run"],
)
def test_a_script_that_calls_init(tracker, torchrun, launcher):
    """A script with its own init() has the same run under every launcher, which only adds the end."""
    if "run" in launcher:
        launcher = (sys.executable, "-c", "from pluto_dist.cli import main; main()", *launcher[3:])
    job = start(torchrun, [*launcher, torchrun.write(INIT)], tracker.environ())

    assert job.returncode == 0, job.output
    (run,) = tracker.runs("other")
    assert {report["id"] for report in job.reports} == {run["id"]}
    assert (run["name"], run["tags"], run["status"], len(run["attaches"])) == ("mine", ["cpu"], "COMPLETED", 2)
    del run["config"]["pluto_dist"]
    assert run["config"] == {"lr": 1, "optim": {"name": "adam"}}
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]


def test_the_command_line_wins(tracker, torchrun):
    """An option wins over the same argument of init(), which one line says; config and tags are merged."""
    own = (*OWN, "--config", "optim.lr=2", "--config", "lr=3", "--tag", "ddp")
    job = start(torchrun, command(torchrun.write(INIT), own=own), tracker.environ())

    (run,) = tracker.runs("wrapped")
    assert (run["name"], run["tags"], tracker.runs("other")) == ("mine", ["cpu", "ddp"], [])
    assert (run["config"]["lr"], run["config"]["optim"]) == (3, {"name": "adam", "lr": 2})
    assert job.output.count("the command line wins; project 'wrapped' is used, not 'other'\n") == 1, job.output


def test_an_init_that_nobody_could_foresee(tracker, torchrun):
    """The run is open before a script whose source does not name this package; its init() adds config and tags."""
    job = start(torchrun, command(torchrun.write(HIDDEN), own=("--tag", "ddp", "--config", "a=1")), tracker.environ())

    assert job.returncode == 0, job.output
    (run,) = tracker.runs("pluto")
    assert (run["tags"], run["config"]["optim"], run["config"]["a"]) == (["cpu", "ddp"], {"name": "adam"}, 1)
    assert {report["id"] for report in job.reports} == {run["id"]}
    assert tracker.runs("other") == []
    assert "its project 'pluto' is used, not 'other', name " in job.output


OF_ITS_OWN = """
import os, pluto_dist
from reporting import report
os.environ.update(PLUTO_API_KEY=os.environ["A_KEY"], PLUTO_URL_API=os.environ["AN_URL"], PLUTO_DIST_HEARTBEAT="0.5")
run = pluto_dist.init(project="other", mode=os.environ["MODE"])
report(run)
"""


@pytest.mark.parametrize("mode", ["online", pytest.param("offline", marks=pytest.mark.exhaustive)])
def test_a_script_that_sets_its_own_key(tracker, torchrun, mode):
    """A launcher that does not know the tracker leaves the end to the ranks, and asks none if the script wants none."""
    launcher = (sys.executable, "-c", "from pluto_dist.cli import main; main()", "run", "--nproc-per-node=2")
    there = {"A_KEY": tracker.environ()["PLUTO_API_KEY"], "AN_URL": tracker.environ()["PLUTO_URL_API"], "MODE": mode}
    known = tracker.environ() if mode == "offline" else {}
    job = start(torchrun, [*launcher, torchrun.write(OF_ITS_OWN)], known | there)

    assert job.returncode == 0, job.output
    assert [report["mode"] for report in job.reports] == [mode] * 2
    assert [(run["status"], len(run["attaches"])) for run in tracker.runs("other")] == [("COMPLETED", 2)] * (
        mode == "online"
    )


# How one process ends, and the status that its run gets.
ENDS = {
    "the end": ("x = 1", "COMPLETED"),
    "exit 0": ("import sys; sys.exit(0)", "COMPLETED"),
    "exit None": ("import sys; sys.exit()", "COMPLETED"),
    "exit 256, which is 0 to the system": ("import sys; sys.exit(256)", "COMPLETED"),
    "exit 3": ("import sys; sys.exit(3)", "FAILED SystemExit: 3"),
    "exit with a text": ("import sys; sys.exit('no data')", "FAILED SystemExit: no data"),
    "exit 3 before finish() at exit": (
        "import atexit, pluto_dist; atexit.register(pluto_dist.init().finish); exit(3)",
        "FAILED SystemExit: 3",
    ),
    "an exception": ("1 / 0", "FAILED ZeroDivisionError: division by zero"),
    "an exception before init()": ("1 / 0\nimport pluto_dist", "FAILED ZeroDivisionError: division by zero"),
    "a base exception": ("class Stop(BaseException): pass\nraise Stop", "FAILED Stop"),
    "a syntax error": ("x = (", "FAILED SyntaxError: '(' was never closed"),
    "a hook of the script's own": ("import sys\nsys.excepthook = print\n1 / 0", "FAILED ZeroDivisionError"),
    "a hook that exits": ("import sys\nsys.excepthook = lambda *_: exit(3)\n1 / 0", "FAILED ZeroDivisionError"),
    "an interrupt": ("raise KeyboardInterrupt", "TERMINATED KeyboardInterrupt"),
    "SIGTERM": ("import os, time; os.kill(os.getpid(), 15); time.sleep(9)", "TERMINATED SIGTERM"),
    "a child that fails": ("import os\nif os.fork(): os.wait()\nelse: 1 / 0", "COMPLETED"),
    "a child that exits": ("import os\nif os.fork(): os.wait()\nelse: exit(3)", "COMPLETED"),
    "a run of its own, after ours": (
        "import pluto_dist\npluto_dist.init().finish()\nwith pluto_dist.init(project='wrapped'): pass\n1 / 0",
        "COMPLETED",
    ),
}


@pytest.mark.exhaustive
def test_ends(tracker, torchrun):
    """However one process ends, its run says so."""
    python = [sys.executable, "-m", "pluto_dist", *OWN]
    jobs = {
        name: start(torchrun, [*python, "--name", name, torchrun.write(script)], tracker.environ())
        for name, (script, _) in ENDS.items()
    }
    runs = tracker.runs("wrapped")
    ends = {run["name"]: (run["status"], (run["statusMetadata"] or {}).get("reason", "")) for run in runs}
    for name, (_, wanted) in ENDS.items():
        assert " ".join(ends[name]).strip().startswith(wanted), (name, ends[name], jobs[name].output)


AGAIN = """
import os, time
from reporting import report
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if os.environ["RANK"] == "1":
        raise ValueError("boom")
    time.sleep(60)  # until the agent ends it
import pluto_dist
report(pluto_dist.init())
"""


@pytest.mark.exhaustive
def test_a_restart(tracker, torchrun):
    """An exception with a restart left ends nothing: the next attempt goes on with the run, and knows the cause."""
    words = command(torchrun.write(AGAIN), options=("--max-restarts=1",))
    job = start(torchrun, words, tracker.environ())

    assert job.returncode == 0, job.output
    (run,) = tracker.runs("wrapped")
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    assert [report["resumed"] for report in job.reports] == [True, True]
    assert "ValueError: boom" in str(run["config"]["pluto_dist"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("trouble", ["no key", "a wrong key", "no tracker", "a wrong variable"])
def test_trouble_with_the_tracker(tracker, torchrun, trouble):
    """Whatever is wrong with the tracker, the script runs, and the job's exit code is the script's."""
    environ = {
        "no key": {"PLUTO_API_KEY": ""},
        "a wrong key": tracker.environ() | {"PLUTO_API_KEY": "mlps_wrong"},
        "no tracker": tracker.environ() | {"PLUTO_URL_API": "http://127.0.0.1:9", "PLUTO_DIST_TIMEOUT": "30"},
        "a wrong variable": tracker.environ() | {"PLUTO_DIST_TIMEOUT": "soon"},
    }[trouble]
    job = start(torchrun, command(torchrun.write("from reporting import report\nreport()\n")), environ)

    assert (job.returncode, len(job.reports)) == (0, 2), job.output
    assert job.output.count("pluto_dist: going on ") >= 1
    assert tracker.runs("wrapped") == []


@pytest.mark.exhaustive
def test_a_module_and_a_shell(tracker, torchrun):
    """-m MODULE, and a shell that torchrun starts without Python, are wrapped alike."""
    (torchrun.folder / "train.py").write_text("import sys\nfrom reporting import report\nreport(argv=sys.argv)\n")
    job = start(torchrun, command("-m", "train", "-m", "x"), tracker.environ())
    assert [report["argv"] for report in job.reports] == [[str(torchrun.folder / "train.py"), "-m", "x"]] * 2

    shell = f"exec {sys.executable} -m pluto_dist --project wrapped -- train.py --help"
    job = start(torchrun, [*TORCHRUN, "--no-python", "sh", "-c", shell], tracker.environ())
    assert [report["argv"] for report in job.reports] == [["train.py", "--help"]] * 2
    runs = tracker.runs("wrapped")
    assert [(run["status"], len(run["attaches"])) for run in runs] == [("COMPLETED", 2)] * 2


@pytest.mark.exhaustive
def test_a_wrong_command_line(tracker, torchrun):
    """What is wrong on the command line is told once on a node, with exit code 2, and nothing is run or created."""
    script = torchrun.write("from reporting import report\nreport()\n")
    job = start(torchrun, command(script, own=("--config", "nowhere.json")), tracker.environ())

    assert job.output.count("nowhere.json") == 1
    assert re.search(r"exitcode\s+: 2 ", job.output)
    assert (job.reports, tracker.log()) == ([], [])


DIES = """
import os, signal, sys, time
from reporting import report
if os.environ["RANK"] == "1":
    report()
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)  # until the agent ends it
"""


@pytest.mark.exhaustive
def test_sigterm(tracker, torchrun):
    """A worker without a handler of its own dies of SIGTERM, as torchrun's report says."""
    job = start(torchrun, command(torchrun.write(DIES)), tracker.environ())

    assert re.search(r"exitcode\s+: -15 ", job.output), job.output
    assert "Signal 15 (SIGTERM)" in job.output


RECORDS = """
import os, time
from torch.distributed.elastic.multiprocessing.errors import record
@record
def main():
    if os.environ["RANK"] == "1":
        raise ValueError("seen by @record")
    time.sleep(60)  # until the agent ends it
main()
"""


@pytest.mark.exhaustive
def test_beside_record(tracker, torchrun):
    """An error file that the script's own @record wrote stays as it is."""
    job = start(torchrun, command(torchrun.write(RECORDS)), tracker.environ())

    assert failure(tracker)["reason"] == "ValueError: seen by @record"
    assert "errors/__init__.py" in job.output.partition("Root Cause")[2]  # @record's own frame
