"""One process without a launcher; platforms that start one on each node, and say how many nodes there are."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected
from environments.typical import worker
from pluto_dist.environments import detect

KONDUKTOR = {"KONDUKTOR_JOB_NAME": "job-1", "MASTER_ADDR": "10.0.0.1", "RANK": "0"}
NODES = {
    "Konduktor, one pod": (KONDUKTOR | {"NUM_NODES": "1"}, None),
    "SkyPilot, one node": ({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1"}, None),
    "SkyPilot": ({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "2"}, "SKYPILOT_NUM_NODES=2"),
    "Kubeflow": ({"PET_NNODES": "4", "PET_NODE_RANK": "0"}, "PET_NNODES=4"),
    "Kubeflow, elastic": ({"PET_NNODES": "1:4"}, "PET_NNODES=1:4"),
    "a script": ({"NNODES": "2"}, "NNODES=2"),
    "a node that is not the first": ({"NODE_RANK": "1"}, "NODE_RANK=1"),
    "AWS Batch": ({"AWS_BATCH_JOB_NUM_NODES": "2"}, "AWS_BATCH_JOB_NUM_NODES=2"),
    "text": ({"NUM_NODES": "many", "NODE_RANK": ""}, None),
}


@pytest.mark.parametrize(("environ", "shown"), NODES.values(), ids=NODES)
def test_a_node_without_a_launcher(environ, shown):
    """One process; where its environment shows more nodes, `init()` warns that each has a run of its own."""
    context = detect(environ)
    assert (context.launcher, context.several_nodes) == ("single", shown)
    assert detect(worker() | environ | {"RANK": "0"}).several_nodes is None


def test_a_pod_of_several():
    """Konduktor's RANK is the pod's: on several pods that is an error with the options of torchrun."""
    options = "--nnodes=$NUM_NODES --rdzv-backend=c10d --rdzv-endpoint=$MASTER_ADDR:29500"
    assert_is_rejected(KONDUKTOR | {"NUM_NODES": "2"}, ("RANK is set", options))
    assert_is_rejected(KONDUKTOR, ("RANK is set", "torchrun"))
