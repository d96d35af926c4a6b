"""The API key: a text that shows itself nowhere, and the environment without it.

A traceback may show the local variables of every frame (rich, pytest, sentry). So no frame of this package has the key
as a text among its locals or in what they refer to: it travels as a :class:`Secret`, which ``client.deadline`` opens as
it writes the request's header to the socket, and the environment is an :class:`Environ`.

>>> Secret("mlps_1").masked("key=mlps_1"), Environ({"PLUTO_API_KEY": "mlps_1", "HOME": "/root"})
('key=***', Environ(1 variable))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

KEY_VARIABLES = ("PLUTO_API_KEY", "MLOP_API_TOKEN")


def is_header_word(text: str) -> bool:
    """Whether an HTTP header can carry ``text`` as one word."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


class Secret:
    """A text that no repr, attribute, copy or pickle shows. White space around it is not part of it.

    A copy is the secret itself; a pickled one has lost its text.
    """

    __slots__ = ("_open",)
    _open: Callable[[], str]

    def __init__(self, value: str) -> None:
        word = value.strip()  # a secret mounted as a file ends in a line break
        self._open = lambda: word

    def reveal(self) -> str:
        """The text: to be used where it is called, and kept in no variable."""
        return self._open()

    def is_header_word(self) -> bool:
        """Whether an HTTP header can carry it as one word."""
        return is_header_word(self._open())

    def masked(self, text: str) -> str:
        """``text`` with ``***`` in its place."""
        return text.replace(self._open() or "***", "***")

    def masked_bytes(self, content: bytes) -> bytes:
        """The same for bytes."""
        return content.replace(self._open().encode() or b"***", b"***")

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._open() == self._open()

    def __hash__(self) -> int:
        return hash(self._open())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: dict[int, object]) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, ("",)


class Environ(Mapping[str, str]):
    """Environment variables as they were at one moment, without those of the API key, which are secrets.

    Args:
        values: the variables; those of another Environ with its secrets.
    """

    __slots__ = ("_secrets", "_values")
    _secrets: dict[str, Secret]

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in values.items() if name not in KEY_VARIABLES}
        self._secrets = values._secrets if isinstance(values, Environ) else _secrets_of(values)

    def secret(self, name: str) -> Secret | None:
        """The variable of :data:`KEY_VARIABLES` with this name; ``None`` if it is not set, or empty."""
        return self._secrets.get(name)

    def changed(self, changes: Mapping[str, str | None]) -> Environ:
        """The same with other values for some variables, or without them (``None``)."""
        made = Environ(self)
        made._values = {name: value for name, value in {**self._values, **changes}.items() if value is not None}
        return made

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Environ({len(self)} variable{'s' * (len(self) != 1)})"


def _secrets_of(values: Mapping[str, str]) -> dict[str, Secret]:
    return {name: Secret(values[name]) for name in KEY_VARIABLES if values.get(name)}
