"""The command line of ``python -m pluto_dist``."""

from __future__ import annotations

import pytest

from pluto_dist.cli.wrap import wrap


@pytest.mark.parametrize("option", ["--local_rank=1", "--local-rank=1"])
def test_an_option_that_launchers_put_before_the_script(option):
    """deepspeed and torch.distributed.launch pass the local rank first; the script gets it, as without the wrapper."""
    target, options = wrap.main([option, "--project", "p", "train.py", "--lr", "1"], "x", standalone_mode=False)
    assert (target.name, target.arguments) == ("train.py", (option, "--lr", "1"))
    assert options == {"project": "p"}
