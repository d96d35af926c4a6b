"""The API key that the SDK's ``pluto login`` stored in the system's keychain.

keyring uses desktop services that may be slow, locked or broken, so it runs in a thread, and the caller waits for it
no longer than a deadline. If keyring is not installed, there is no stored key.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from pluto_dist.background import start_thread
from pluto_dist.contract.secret import Secret
from pluto_dist.log import logger
from pluto_dist.settings import settings

SECONDS = 2.0
_SERVICE = _USER = "pluto"  # as in pluto-ml 0.0.28


def with_stored_key(chosen: settings.Settings) -> settings.Settings:
    """The settings, with the stored key if none was given.

    Raises:
        ConfigurationError: the stored text is not an API key.
    """
    if chosen.api_key is not None or (stored := stored_key()) is None:
        return chosen
    return replace(chosen, api_key=settings.load({}, api_key=stored).api_key)


def stored_key(timeout: float = SECONDS) -> Secret | None:
    """The stored key; ``None`` if there is none, or if reading it took longer than ``timeout`` seconds."""
    if importlib.util.find_spec("keyring") is None:
        return None
    found: list[Secret] = []
    thread = start_thread(_read, "pluto_dist keychain", found, lost="the keychain is not read")
    if thread is not None:
        thread.join(timeout)
    return found[0] if found else None


def _read(found: list[Secret]) -> None:
    try:
        import keyring

        key = Secret(keyring.get_password(_SERVICE, _USER) or "")
    except Exception as error:  # noqa: BLE001  # border: any backend of keyring, and each raises its own errors
        logger.debug("the keychain cannot be read: %s", type(error).__name__)
        return
    if key != Secret(""):
        found.append(key)
