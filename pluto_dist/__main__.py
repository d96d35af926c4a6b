"""``python -m pluto_dist [OPTIONS] script.py ARGS...``: the script, as one of the ranks of the job's run."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # The working directory, which python -m puts first, may hold namesakes of what we are about to load.
    modules = frozenset(sys.modules)
    folder = None if getattr(sys.flags, "safe_path", sys.flags.isolated) else sys.path.pop(0)

    from pluto_dist.cli import wrap

    wrap.main(folder, modules)
