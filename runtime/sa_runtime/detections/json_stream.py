"""JSON of any size, value by value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from sa_runtime.errors import shown

_READ_CHARACTERS = 2**22
_BLANKS = re.compile(r"[ \t\r\n]*")
_NUMBER_GOES_ON = frozenset("0123456789.eE+-")


class JsonStream:
    """Reads a text of one array, or of one object that holds arrays.

    Args:
        file: the text.

    >>> import io
    >>> stream = JsonStream(io.StringIO('{"a": [1, {"b": 2}], "c": 3}'))
    >>> [(key, list(items)) for key, items in stream.members()]
    [('a', [1, {'b': 2}]), ('c', [3])]
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """Every key with its values, one by one where it holds an array; an array has the key "".

        The values of a key end with the next key.

        Raises:
            ValueError: no JSON.
        """
        if self._peek() == "[":
            yield "", self._array()
            return
        self._take("{")
        while self._peek() != "}":
            key = self._value()
            self._take(":")
            values = self._array() if self._peek() == "[" else iter([self._value()])
            yield str(key), values
            for _ in values:
                pass
            if self._peek() != "}":
                self._take(",")

    def _array(self) -> Iterator[Any]:
        self._take("[")
        while self._peek() != "]":
            yield self._value()
            if self._peek() != "]":
                self._take(",")
        self._take("]")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._read():
                    raise ValueError(f"{shown(self._text[self._at :])} is no JSON") from None
                continue
            # A number at the end of what is read may go on.
            if end == len(self._text) and self._text[end - 1] in _NUMBER_GOES_ON and self._read():
                continue
            self._at = end
            return value

    def _peek(self) -> str:
        """The next sign that is no blank; empty at the end."""
        while True:
            match = _BLANKS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _take(self, sign: str) -> None:
        if self._peek() != sign:
            raise ValueError(f"{shown(self._text[self._at :]) or 'the end'} stands for {sign!r}")
        self._at += 1

    def _read(self) -> bool:
        more = self._file.read(_READ_CHARACTERS)
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)
