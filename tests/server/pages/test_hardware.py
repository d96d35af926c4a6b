"""Nodes and GPUs on the run's page."""

from __future__ import annotations

import pytest

from server.conftest import TIMEOUT, Client


@pytest.mark.parametrize(
    "metadata",
    [
        "[1]",
        '"text"',
        '{"nodes":5,"node_classes":{},"cluster":[],"hosts":"x"}',
        '{"nodes":[1,null,"x",[],{"class":"a","gpus":5,"bad":[],"diff":{"a":1}}],"hosts":[1,null]}',
        '{"nodes":[{"class":true},{"class":-1},{"class":99},{"class":1.5}],"node_classes":[1,{"gpu":3,"nic":[1]}]}',
        '{"gpu":{"nvidia":{"devices":[1,{"memory":7}]}},"cpu":3,"platform":[]}',
        '{"hosts":[["a"],{"b":1}],"cluster":{"drift":{"x":[1]},"gpus":null},"drift":[5,{"nodes":[1]},{"field":{}}]}',
        '{"nodes":[{"gpus":[1],"rank":true,"gpu_of_rank":[[0]],"ranks":{},"uuid_of_rank":[{}],"hidden":[[]]}],"drift":1}',
        '{"node_classes":[{"gpu":{"memory":"a lot","power_limit_w":[1],"nvlink":4},"nic":{},"memory":{"total":-1}}]}',
    ],
)
def test_unexpected_metadata(client: Client, project: str, metadata: str) -> None:
    """No metadata document breaks the page."""
    run = client.create_run(project, systemMetadata=metadata)
    assert client.session.get(run["url"], timeout=TIMEOUT).status_code == 200
