"""The API key of ``pluto login``, with a keyring of the test's own in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KEYRING = """
import time
def get_password(service, user):
    assert (service, user) == ("pluto", "pluto")
    {body}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 'mlps_from_login'", "mlps_from_login"),
        ("return None", "None"),
        ("raise RuntimeError('locked')", "None"),
        ("time.sleep(60)", "None"),
    ],
    ids=["there", "empty", "locked", "silent"],
)
def test_the_key_of_pluto_login(tmp_path: Path, body, expected):
    """The keychain's key is read; a keychain that is empty, locked or silent delays by at most its 2 s."""
    (tmp_path / "keyring.py").write_text(KEYRING.format(body=body))
    code = (
        "import time; from pluto_dist.settings.keychain import stored_key; began = time.monotonic(); "
        "key = stored_key(); print(key and key.reveal()); assert time.monotonic() - began < 10; import os; os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "mlps_from_login"), ({"PLUTO_API_KEY": "mlps_given"}, "mlps_given")], ids=["no", "a"]
)
def test_a_stored_key_fills_a_gap_and_replaces_no_given_key(tmp_path: Path, given, expected):
    """The stored key counts only if no key was given."""
    (tmp_path / "keyring.py").write_text(KEYRING.format(body="return 'mlps_from_login'"))
    code = (
        "import os; from pluto_dist.settings import keychain, settings; "
        "print(keychain.with_stored_key(settings.load(dict(os.environ))).api_key.reveal())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == expected
