"""Schedules of whole jobs: those of CI, and every one that ever failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAILED_ONCE = {
    "default": (
        *(36, 38, 41, 77, 78, 97, 104, 108, 110, 114, 138, 173, 179, 183, 211, 220, 223, 229, 241, 248, 291, 295, 300),
        *(306, 311, 325, 333, 344, 366, 379, 380, 389, 406, 410, 422, 423, 427, 433, 442, 445, 574, 592, 633, 641),
        *(645, 653, 659, 731, 744, 832, 843, 862, 904, 905, 913, 921, 937, 955, 966, 969, 976, 1012, 1025, 1037, 1049),
        *(1058, 1081, 1095, 1121, 1152, 1164, 1212, 1320, 1394, 1524, 1548, 1550, 1576, 1660, 1787, 1803, 1840, 1853),
        *(1868, 1898, 2234, 2308, 2353, 2410, 2457, 2821, 3225, 3339, 3788, 4284, 5077, 5237, 5420, 5902, 6357, 7677),
        *(8112, 9270, 9532, 11561, 11606, 11932, 12008, 12134, 12196, 25761, 27545, 27554, 28785, 29449, 29484, 30523),
        *(31939, 32043, 33029, 35559, 37237, 38535, 39107, 40844, 47140, 63908, 68003, 70253, 70799),
        *(30, 228, 765, 970, 1071, 1157, 1754, 3837, 4273, 5972, 6157, 12533, 15012, 15519, 17497, 19997),
    ),
    "short": (
        *(80, 95, 106, 135, 344, 462, 531, 592, 950, 1019, 1035, 1164, 1275, 1279, 1435, 1525, 1607, 1628, 1697, 1747),
        *(2104, 2345, 2678, 2712, 3046, 3632, 4583, 4650, 6132, 6285, 6527, 6581, 7060, 7573, 10085, 12079, 14255),
        *(14597, 15627, 15988, 16951, 18331, 19896, 23121, 23511, 26057, 28194, 29810, 30924, 35734, 37803, 38306),
        *(38869, 43325, 43402, 43486),
        *(48, 670, 826, 880, 953, 1111, 1222, 1353, 1371, 2054, 2968, 6347, 10074, 10474, 10931, 12825, 14590, 17614),
        *(18754, 19355, 2612, 3652),
    ),
}
"""The seeds whose schedules broke a promise, by the profile that they are drawn from; none does any more.

A seed of the profile "scenes" is another schedule once a scene is added: what was found there has tests of its own.
"""


def simulate(*arguments: str, module: str = "simulation") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=170, check=False)


@pytest.mark.parametrize("profile", ["default", "scenes"])
def test_no_schedule_breaks_a_promise(profile):
    """100 schedules of each; those below, and what is refused, are as many again, and more."""
    done = simulate("--seeds", "0:100", "--profile", profile)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("profile", FAILED_ONCE)
def test_what_failed_once(profile):
    """A schedule that broke a promise is kept."""
    done = simulate("--seeds", ",".join(map(str, FAILED_ONCE[profile])), "--profile", profile)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_refusal_is_final_and_harmless():
    """Three ways to be refused, with and without restarts and a slow rank: 108 rows, and the run as it was in each."""
    done = simulate(module="simulation.refusals")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("the run is as it was") == 108


def test_a_seed_is_one_schedule_to_the_byte():
    """The story of a seed is the same, whatever ran before it."""
    first, second = (simulate("--seeds", "104", "--story").stdout for _ in range(2))
    assert len(first.splitlines()) > 10
    assert _without_pids(first) == _without_pids(second)


def _without_pids(story: str) -> list[str]:
    return [line.split("/dev/shm/")[0] for line in story.splitlines()]
