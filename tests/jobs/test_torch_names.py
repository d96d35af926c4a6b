"""What this package uses of torch: a closed list, and what happens where a name that is not public is gone.

A torch that nobody has tried is met in this way, and not by an upper bound.
"""

from __future__ import annotations

import ast
import logging
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from click.testing import CliRunner
from torch.distributed.elastic.multiprocessing import api, errors
from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

import pluto_dist
from pluto_dist import environments, log
from pluto_dist.cli import main
from pluto_dist.inventory.gpu import torch_device
from pluto_dist.launcher import agent, script

ROOT = Path(pluto_dist.__file__).parent
ELASTIC = "torch.distributed.elastic.multiprocessing"

PUBLIC = {
    "torch",
    "torch.__version__",
    "torch.distributed",
    "torch.distributed.PrefixStore",
    "torch.distributed.Store",
    "torch.distributed.TCPStore",
    *(f"torch.distributed.{name}" for name in ("get_rank", "get_world_size", "is_available", "is_initialized")),
    "TCPStore.host",
    "TCPStore.port",
    f"{ELASTIC}.errors.ChildFailedError",
    f"{ELASTIC}.errors.record",
}
"""In torch's documentation."""
INTERNAL = {
    "torch.distributed.distributed_c10d._get_default_store",
    "torch._C._cuda_hasPrimaryContext",
    "PrefixStore.underlying_store",
    "TCPStore(multi_tenant)",
    "torch.distributed.run.get_args_parser",
    "torch.distributed.run.run",
    f"{ELASTIC}.api.SignalException",
    "SignalException.sigval",
    f"{ELASTIC}.errors.ProcessFailure",
    *(f"ProcessFailure.{field}" for field in ("error_file", "error_file_data", "exitcode", "message", "timestamp")),
    f"{ELASTIC}.errors.get_error_handler",
    "ErrorHandler.record_exception",
}
"""Not documented: each is taken away below."""
MEMBERS = {
    "PrefixStore": {*dir(dist.PrefixStore)} - {*dir(dist.Store)},
    "TCPStore": {*dir(dist.TCPStore)} - {*dir(dist.Store)},
    "SignalException": {"sigval"},  # set by its __init__
    "ProcessFailure": {*errors.ProcessFailure.__dataclass_fields__, *dir(errors.ProcessFailure)} - {"pid"},
    "ErrorHandler": {*dir(ErrorHandler)},
}
"""Members of torch's classes: without the methods of all stores, which are public, and what other objects have too."""


def used_in(path: Path) -> Iterator[str]:
    """What a module uses of torch: imports, attributes of the modules, and members of torch's classes."""
    text = path.read_text(encoding="utf-8")
    if "torch" not in text:
        return
    yield from (f"torch._C.{word}" for word in re.findall(r'"(_cuda\w+)"', text))
    nodes = list(ast.walk(ast.parse(text)))
    modules = {}  # what a module of torch is called here
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found = [alias for alias in node.names if alias.name.split(".")[0] == "torch"]
            yield from (alias.name for alias in found)
            modules |= {alias.asname or "torch": alias.name if alias.asname else "torch" for alias in found}
    for node in nodes:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
        if isinstance(node, ast.Attribute):
            base, *rest = ast.unparse(node.value).split(".")
            if base in modules:
                yield ".".join([modules[base], *rest, node.attr])
        if (modules or "elastic" in text) and isinstance(name, str) and not name.startswith("__"):
            yield from (f"{kind}.{name}" for kind, members in MEMBERS.items() if name in members)
        if isinstance(node, ast.Constant) and node.value == "multi_tenant":
            yield "TCPStore(multi_tenant)"


def test_the_list_is_closed():
    """The package uses nothing of torch that is not listed, and all that is."""
    found = {name for path in ROOT.rglob("*.py") for name in used_in(path)}
    assert found == PUBLIC | INTERNAL


def test_this_torch_has_the_list():
    """All of it is in the torch that runs these tests; a fault of a new torch is seen here first."""
    for name in PUBLIC | INTERNAL:
        start, _, rest = name.partition(".")
        if start in MEMBERS:
            assert rest in MEMBERS[start], name
        elif "(" not in name and not name.startswith("torch._C"):
            module, _, last = name.rpartition(".")
            __import__(module or last)
            assert not module or hasattr(sys.modules[module], last) or name in sys.modules, name


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged at debug level, as in a process that has not said it yet."""
    log.lacking.cache_clear()
    with caplog.at_level(logging.DEBUG, logger="pluto_dist"):
        yield caplog
    log.lacking.cache_clear()


# The launcher.


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.distributed.run", "get_args_parser"),
        ("torch.distributed.run", "run"),
        (f"{ELASTIC}.api", "SignalException"),
    ],
)
def test_a_launcher_that_cannot_start(monkeypatch, tmp_path, module, name):
    """`pluto-dist run` starts nothing and says which command does the same."""
    monkeypatch.delattr(sys.modules[module], name)
    monkeypatch.delenv("PLUTO_API_KEY", raising=False)
    (tmp_path / "train.py").write_text("raise SystemExit(9)")
    done = CliRunner().invoke(main, ["run", "--offline", str(tmp_path / "train.py")])
    assert done.exit_code == 1
    assert name in done.output and "torchrun [TORCHRUN OPTIONS] -m pluto_dist" in done.output


FAILURE = {
    "error_file": "none",
    "error_file_data": {"message": {"message": "boom", "extraInfo": {}}},
    "exitcode": 3,
    "message": "m",
    "timestamp": 1.0,
}


@pytest.mark.parametrize("field", FAILURE)
def test_a_failure_without_a_field(said, field):
    """The root cause has what the other fields say."""
    kept = {name: value for name, value in FAILURE.items() if name != field}
    found, _ = (agent._failure(1, SimpleNamespace(**kept), "host") for _ in range(2))
    assert (found.rank, found.host) == (1, "host")
    assert found.exitcode == (None if field == "exitcode" else 3)
    assert found.reason == ("" if field == "error_file_data" else "boom")
    assert said.text.count(f"ProcessFailure.{field} is not there") == 1


def test_a_signal_without_its_number(said):
    """The end of the job names no signal."""
    assert agent._signal_of(api.SignalException("m", sigval=signal.SIGTERM)) == "SIGTERM"
    assert [agent._signal_of(RuntimeError()) for _ in range(2)] == ["a signal"] * 2
    assert said.text.count("SignalException.sigval is not there") == 1


@pytest.mark.parametrize("gone", ["get_error_handler", "record_exception"])
def test_an_error_without_torchs_file(said, monkeypatch, tmp_path, gone):
    """The script's own error goes on; a warning says that torchrun will not know of it."""
    monkeypatch.delattr(*((errors, gone) if gone == "get_error_handler" else (ErrorHandler, gone)))
    error = ValueError("boom")
    script._write_error_file(error, str(tmp_path / "error.json"))
    assert gone in said.text and "torchrun will not know of this error" in said.text


# The GPU of a rank.


class Cuda:
    """torch.cuda of a process that sees four GPUs; the test machine has none."""

    def __init__(self, **properties: str) -> None:
        self._properties = properties

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 4

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(**{name: f"{value}{device}" for name, value in self._properties.items()})


def test_a_context_that_cannot_be_asked_for(said):
    """A script that has set no device counts as on the one of its local rank."""
    torch = SimpleNamespace(cuda=Cuda(uuid="u"), _C=SimpleNamespace())
    assert [torch_device.uuid_in_use(torch, 0, 2) for _ in range(2)] == ["u2"] * 2
    assert said.text.count("torch._C._cuda_hasPrimaryContext is not there") == 1


def test_properties_without_a_uuid(said):
    """The GPU of the rank follows from the visible devices; torch before 2.5.1 is like that, and refused by pip."""
    torch = SimpleNamespace(cuda=Cuda(name="H100"), _C=SimpleNamespace(_cuda_hasPrimaryContext=lambda n: n == 3))
    assert [torch_device.uuid_in_use(torch, 0, 2) for _ in range(2)] == [None] * 2
    assert said.text.count("uuid of torch's device properties is not there") == 1


# The folder of torch's error files.


def test_another_layout_of_error_files(said):
    """Attempts are told apart by the restart count alone."""
    variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}
    for file in ("/logs/x_1/attempt_0/0/error.json", "/logs/x_1/0/0/error.json", "/logs/x_1/0/0/error.json"):
        context = environments.detect({**variables, "TORCHELASTIC_ERROR_FILE": file})
    assert context.attempt_folder is None
    assert said.text.count("attempt_N/RANK/error.json in torch's folder is not there") == 1


# The ranks' store, in real jobs of two processes that no agent started.

RANK = """
import logging, os, sys
logging.getLogger("pluto_dist").setLevel(logging.DEBUG)
import torch.distributed as dist
from torch.distributed import distributed_c10d
import pluto_dist
from pluto_dist.rendezvous import connect
from reporting import report

class NotShared(dist.TCPStore):
    def __init__(self, *args, multi_tenant=None, **kwargs):
        if multi_tenant is not None:
            raise TypeError("multi_tenant is no argument")
        super().__init__(*args, **kwargs)

gone = sys.argv[1]
if gone != "multi_tenant":
    dist.init_process_group("gloo")
if gone == "_get_default_store":
    del distributed_c10d._get_default_store
elif gone == "underlying_store":
    del dist.PrefixStore.underlying_store
else:
    dist.TCPStore = NotShared
run = pluto_dist.init(project="names", timeout=60 if gone != "multi_tenant" else 5)
report(run)
run.finish()
if gone != "multi_tenant":
    dist.destroy_process_group()
"""


def job_without(gone: str, tracker, torchrun) -> list:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, torchrun.write(RANK), gone]
    started = [torchrun.start_command(command, tracker.environ() | place | {"RANK": str(rank)}) for rank in range(2)]
    return [torchrun.finish(process) for process in started]


@pytest.mark.multiprocess
@pytest.mark.parametrize("gone", ["_get_default_store", "underlying_store"])
def test_a_process_group_without_its_store(tracker, torchrun, gone):
    """The ranks land in one run all the same, and each says once what it does without."""
    jobs = job_without(gone, tracker, torchrun)
    assert [job.returncode for job in jobs] == [0, 0], jobs
    (run,) = tracker.runs("names")
    assert (run["status"], len(run["attaches"])) == ("COMPLETED", 2)
    assert [job.output.count(f"{gone} is not there") for job in jobs] == [1, 1]


@pytest.mark.multiprocess
def test_a_port_that_cannot_be_shared(tracker, torchrun):
    """Rank 0 does not take the port that init_process_group is going to want: it trains on, and says what to do."""
    first, second = job_without("multi_tenant", tracker, torchrun)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "going on without the other ranks" in first.output
    assert "does not make the ranks' shared store" in first.output
    assert "call pluto_dist.init() after init_process_group()" in first.output
