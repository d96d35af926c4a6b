"""Kills by the kernel for lack of memory, as its counters show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pluto_dist.launcher.oom import OomKillCounts, count_oom_kills

VERSION_1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:memory:/job/7\n0::/\n",
    "sys/fs/cgroup/memory/job/7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "proc/vmstat": "nr_free_pages 5\noom_kill 9\n",
}
VERSION_2 = {
    "proc/self/cgroup": "0::/user.slice/job\n",
    "sys/fs/cgroup/user.slice/job/memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 4\noom_group_kill 0\n",
}
IN_A_CONTAINER = {
    "proc/self/cgroup": "4:memory:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 1\n",
}


@pytest.mark.parametrize(
    ("tree", "counts"),
    [
        (VERSION_1, OomKillCounts(2, 9)),
        (VERSION_2, OomKillCounts(4, None)),
        (IN_A_CONTAINER, OomKillCounts(1, None)),
        ({"proc/self/cgroup": "garbage\n::\n", "proc/vmstat": "oom_kill many\n"}, OomKillCounts(None, None)),
        ({}, OomKillCounts(None, None)),
    ],
    ids=["version 1", "version 2", "a container", "garbage", "nothing"],
)
def test_the_kernels_counters(tmp_path: Path, tree, counts):
    """Both versions of cgroups, a container's view, and machines that show nothing."""
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_oom_kills(tmp_path) == counts


def test_this_machines_counters():
    """The real tree is read without an error."""
    assert isinstance(count_oom_kills(), OomKillCounts)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (OomKillCounts(1, 1), OomKillCounts(2, 2), "cgroup"),
        (OomKillCounts(1, 1), OomKillCounts(1, 2), "machine"),
        (OomKillCounts(1, 1), OomKillCounts(1, 1), None),
        (OomKillCounts(None, None), OomKillCounts(None, None), None),
        (OomKillCounts(None, 3), OomKillCounts(None, 4), "machine"),
    ],
)
def test_whose_memory_ran_out(before, after, told):
    """The counter that rose says whose memory it was."""
    said = after.since(before)
    assert said is None if told is None else told in (said or "")
