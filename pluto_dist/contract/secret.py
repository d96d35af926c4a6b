"""The API key: a string that does not show itself, and what an HTTP header can carry."""

from __future__ import annotations


def is_header_word(text: str) -> bool:
    """Whether an HTTP header can carry ``text`` as one word."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


class Secret:
    """A string that shows itself to nobody but the one who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
