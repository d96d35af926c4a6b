"""Host, software and the collection of a node: real on this machine, faked where the machine lacks it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from pluto_dist.inventory.probes import host, software
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.records import GpuReport


def python(code: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(host.__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_inventory_is_light():
    """Neither psutil nor pynvml nor torch is imported before somebody collects."""
    code = "import sys, pluto_dist.inventory; print({'psutil', 'pynvml', 'torch', 'platform'} & set(sys.modules))"

    assert python(code) == "set()\n"


def test_collecting_leaves_torch_alone():
    """torch is described without being imported."""
    code = (
        "import sys; from pluto_dist.inventory.probes.collect import collect; collect(); print('torch' in sys.modules)"
    )

    assert python(code) == "False\n"


def test_this_machine_is_described():
    """What psutil and the kernel say of this machine is in the report."""
    found = host.probe()

    assert host.hostname() == platform.node()
    assert (found.system, found.kernel, found.arch) == (
        platform.system(),
        platform.release(),
        platform.machine(),
    )
    assert found.os and found.cpu_model
    assert found.memory == psutil.virtual_memory().total
    assert found.cores_logical == psutil.cpu_count()
    assert found.boot_time == pytest.approx(psutil.boot_time(), abs=2)


def test_a_machine_without_proc_and_sys_is_still_reported(tmp_path):
    """What cannot be read is unknown, everything else is there."""
    found = host.probe(root=tmp_path)

    assert (found.cpu_model, found.freq_min_mhz, found.freq_max_mhz) == (None, None, None)
    assert found.memory and found.kernel


@pytest.mark.parametrize(
    ("files", "model"),
    [
        ({"cpuinfo": b"processor\t: 0\nmodel name\t: AMD EPYC 9654\n"}, "AMD EPYC 9654"),
        ({"cpuinfo": b"processor: 0\nModel\t\t: Raspberry Pi 5\n"}, "Raspberry Pi 5"),
        ({"cpuinfo": b"processor: 0\n", "device-tree/model": b"NVIDIA Jetson AGX Orin\x00"}, "NVIDIA Jetson AGX Orin"),
        ({"cpuinfo": b"\xff\xfe"}, None),
    ],
)
def test_the_cpus_model_is_found(tmp_path, files, model):
    """x86 has it in cpuinfo, arm64 at best in the device tree."""
    for name, content in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    assert host.probe(root=tmp_path).cpu_model == model


def test_frequencies_span_all_cores(tmp_path):
    """Lowest and highest over efficiency and performance cores, in MHz."""
    for n, (low, high) in enumerate([(800_000, 3_800_000), (400_000, 2_400_000)]):
        policy = tmp_path / "sys" / "devices" / "system" / "cpu" / "cpufreq" / f"policy{n}"
        policy.mkdir(parents=True)
        (policy / "cpuinfo_min_freq").write_text(f"{low}\n")
        (policy / "cpuinfo_max_freq").write_text(f"{high}\n")
    found = host.probe(root=tmp_path)

    assert (found.freq_min_mhz, found.freq_max_mhz) == (400.0, 3800.0)


def test_torch_is_the_same_imported_or_not():
    """A node that was asked before it imported torch must not seem to differ from one asked after."""
    code = """
import json
from pluto_dist.inventory.probes import software
before = software.probe().to_json()
import torch
after = software.probe().to_json()
print(json.dumps([before, after, torch.__version__, torch.cuda.is_initialized()]))
"""
    before, after, version, initialized = json.loads(
        python(code, "-W", "ignore::DeprecationWarning", "-W", "ignore::UserWarning")
    )

    assert before == after and before["torch"] == version
    assert initialized is False


TORCH = {
    "torch/__init__.py": "raise AssertionError('torch was imported')\n",
    "torch/version.py": "from typing import Optional\n__version__ = '2.4.0+cu121'\ncuda: Optional[str] = '12.1'\n",
    "nvidia_nccl_cu12-2.20.5.dist-info/METADATA": "",
    "nvidia_cudnn_cu12-9.1.0.70.dist-info/METADATA": "",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


def probed(folder: Path) -> dict[str, str]:
    code = f"""
import json, sys
sys.path.insert(0, {str(folder)!r})
from pluto_dist.inventory.probes import software
print(json.dumps(software.probe().to_json()))
"""
    return json.loads(python(code))


def test_a_cuda_torch_is_read_from_its_files(tmp_path):
    """Versions of torch, CUDA, cuDNN and NCCL come from a wheel's files, three numbers each."""
    found = probed(write(tmp_path, TORCH))

    assert (found["torch"], found["cuda"]) == ("2.4.0+cu121", "12.1")
    assert (found["cudnn"], found["nccl"]) == ("9.1.0", "2.20.5")


def test_a_cpu_torch_has_no_cudnn(tmp_path):
    """Left-over NVIDIA packages say nothing about a torch without CUDA."""
    version = "__version__ = '2.4.0+cpu'\ncuda = None\n"
    found = probed(write(tmp_path, {**TORCH, "torch/version.py": version}))

    assert found["torch"] == "2.4.0+cpu" and not {"cuda", "cudnn", "nccl"} & set(found)


def test_two_versions_of_one_library_are_no_answer(tmp_path):
    """Where two packages could be meant, none is named."""
    found = probed(write(tmp_path, {**TORCH, "nvidia_nccl_cu11-2.19.3.dist-info/METADATA": ""}))

    assert "nccl" not in found and found["cudnn"] == "9.1.0"


@pytest.mark.parametrize("content", ["syntax error (", "", "__version__ = 1\n"])
def test_a_torch_that_cannot_be_read_is_unknown(tmp_path, content):
    """A broken file costs the version, not the inventory."""
    found = probed(write(tmp_path, {**TORCH, "torch/version.py": content}))

    assert "torch" not in found and found["python"] == platform.python_version()


def test_collect_runs_nothing_and_leaves_nothing(monkeypatch):
    """No program is started, and no thread is left behind when the driver answers."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    found = collect()

    assert found.gpus.error != "timeout" and found.collect_ms is not None
    assert "pluto-dist-gpu-probe" not in {thread.name for thread in threading.enumerate()}


def test_a_crashing_probe_is_an_error_not_a_timeout(monkeypatch):
    """A defect in a vendor's probe is named, and costs neither the deadline nor the inventory."""

    def broken() -> GpuReport:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["pluto_dist.inventory.probes.collect"], "GPU_PROBES", (broken,))

    assert collect(60).gpus == GpuReport(error="ZeroDivisionError")


def test_a_process_that_may_start_no_thread_is_reported(monkeypatch):
    """A container's limit on processes is one named error, not an exception."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert collect(60).gpus == GpuReport(error="RuntimeError")


def test_the_software_of_this_process_is_described():
    """The running interpreter, by its own words."""
    found = software.probe()

    assert (found.python, found.python_executable) == (platform.python_version(), sys.executable)
    assert found.python_implementation == platform.python_implementation()
