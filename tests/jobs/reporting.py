"""Imported by the scripts that tests run: writes what a rank saw where the test can read it."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any


def report(run: Any = None, **more: Any) -> None:
    """Write one report of this rank: the run's properties and ``more``."""
    seen: dict[str, Any] = {"rank": int(os.environ.get("RANK", "0")), "at": time.time()}
    if run is not None:
        names = ("id", "run_id", "run_id_source", "display_id", "number", "url", "project", "resumed", "mode")
        seen.update({name: getattr(run, name) for name in names})
    path = Path(os.environ["REPORTS"]) / f"{uuid.uuid4().hex}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(seen | more))
    draft.rename(path)
