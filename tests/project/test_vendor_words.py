"""What is NVIDIA's stands in its vendor file; elsewhere only where another party chose the words."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pluto_dist
from pluto_dist.inventory.records import Gpu, GpuReport
from pluto_dist.lifecycle.plan import Plan

ROOT = Path(pluto_dist.__file__).parent
WORDS = re.compile(r"(?<![a-z])(?:py)?(?:nvidia|cuda|nvlink|nvml)", re.IGNORECASE)
ON_THE_WIRE = [each.name for kind in (Gpu, GpuReport, Plan) for each in fields(kind) if WORDS.match(each.name)]
"""Names of fields that every vendor's GPUs have: nodes of two versions exchange them, so they keep their names."""
FIELDS = re.compile(rf"\b(?:{'|'.join(ON_THE_WIRE)})\b")

PROFILE = "the profile of one vendor's driver for the fake one of the tests, a tool for bug reports"
MAY_HAVE_THEM = {
    "__init__.py": "which modules an import does not load",
    "cli/doctor.py": "the option that writes the profile",
    "doctor/nvml_profile/__init__.py": PROFILE,
    "doctor/nvml_profile/dump.py": PROFILE,
    "doctor/nvml_profile/functions.py": PROFILE,
    "doctor/nvml_profile/recorder.py": PROFILE,
    "inventory/__init__.py": "which modules an import does not load",
    "inventory/probes/software.py": "torch's own names for the version it was built with, and PyPI's of its libraries",
    "inventory/records.py": "the vendor of reports without one, torch's CUDA version, examples of values",
    "inventory/report/classes.py": "torch's CUDA version, a name in the document",
    "inventory/report/cluster.schema.json": "the schema of the document",
    "inventory/report/drift.py": "torch's CUDA version, a name in the document",
    "inventory/report/interconnect.py": "examples of the words for a link",
    "inventory/report/sdk_fields.py": "the official SDK's names",
    "inventory/safe_read.py": "exceptions that were seen, and where",
    "lifecycle/plan.py": "documents a field that keeps its name",
    "server/pages/hardware.py": "torch's CUDA version, a name in the document; examples",
}
"""Path within the package, and the reason."""


def files_with_the_words() -> set[str]:
    """Every file of the package outside of ``inventory/gpu`` that has one of the words."""
    found = (path for suffix in ("py", "json", "html", "js", "css") for path in ROOT.rglob(f"*.{suffix}"))
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if not path.is_relative_to(ROOT / "inventory" / "gpu")
        and WORDS.search(FIELDS.sub("", path.read_text(encoding="utf-8")))
    }


def test_the_words_of_one_vendor():
    """They are in the files that have a reason, and in no other."""
    assert files_with_the_words() == MAY_HAVE_THEM.keys()
