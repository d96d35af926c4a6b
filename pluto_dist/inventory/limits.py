"""Most items of each kind that an inventory may have; what arrives with more is refused."""

from __future__ import annotations

DEVICE_LIMIT = 1024  # GPUs of one node


RANK_LIMIT = 4096  # ranks on one node


PID_LIMIT = 1024  # processes on one GPU


MIG_LIMIT = 64  # MIG instances of one GPU; today's hardware has at most 7


NIC_LIMIT = 256  # network ports of one node; a node with 128 virtual functions has that many


PACKAGE_LIMIT = 4096  # installed packages


VARIABLE_LIMIT = 128  # environment variables
