"""The API key that the SDK's ``pluto login`` left in the system's keychain, where there is one.

keyring asks desktop services that may be slow, locked or broken, so it is asked in a thread that nobody waits
for beyond a deadline. Without keyring installed nothing is imported and nothing asked.
"""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import replace

from pluto_dist.log import logger
from pluto_dist.settings import settings

SECONDS = 2.0
_SERVICE = _USER = "pluto"  # where pluto-ml 0.0.28 keeps it


def with_stored_key(chosen: settings.Settings) -> settings.Settings:
    """The settings with the stored key, checked like any other, where none was given; else as they are.

    Raises:
        ConfigurationError: what is stored is no API key.
    """
    if chosen.api_key is not None or (stored := stored_key()) is None:
        return chosen
    return replace(chosen, api_key=settings.load({}, api_key=stored).api_key)


def stored_key(seconds: float = SECONDS) -> str | None:
    """The stored key; ``None`` where there is none, or it did not come within ``seconds``."""
    if importlib.util.find_spec("keyring") is None:
        return None
    found: list[str] = []
    thread = threading.Thread(target=_ask, args=(found,), name="pluto_dist keychain", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _ask(found: list[str]) -> None:
    try:
        import keyring

        key = keyring.get_password(_SERVICE, _USER)
    except Exception as error:  # noqa: BLE001  # border: any backend, and each raises what it likes
        logger.debug("the keychain cannot be read: %s", type(error).__name__)
        return
    if key:
        found.append(key)
