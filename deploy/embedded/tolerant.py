"""JSON as rapidjson reads it for TensorFlow Serving: NaN and Infinity, any depth, any bytes in strings; its errors.

Slow, so asked only where the quick parser refuses. What follows a complete document is ignored, as in Serving.
"""

import json
import re
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]  # undocumented, but there since Python 2
from typing import Any

from deploy.embedded.signatures import ServingError

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?P<float>(?:\.\d+)?(?:[eE][+-]?\d+)?)", re.ASCII)
_WORDS = {
    "true": True, "false": False, "null": None, "NaN": float("nan"), "-NaN": float("nan"),
    "Infinity": float("inf"), "-Infinity": float("-inf"), "Inf": float("inf"), "-Inf": float("-inf"),
}  # fmt: skip
_WORD = re.compile("|".join(sorted(_WORDS, key=len, reverse=True)))
_LONGEST_INTEGER = 20
"""Characters of -2**63, and of 2**64 - 1."""

_OPENING = {"[": "]", "{": "}"}


@dataclass
class _Open:
    """A list or object that is being read; `name` is that of the member whose value comes next."""

    value: Any
    closing: str
    name: str = ""


@dataclass
class _Reader:
    text: str
    at: int = 0
    open: list[_Open] = field(default_factory=list)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def fail(self, message: str) -> ServingError:
        offset = len(self.text[: self.at].encode("utf-8", "surrogateescape"))
        return ServingError("INVALID_ARGUMENT", f"JSON Parse error: {message} at offset: {offset}")


def parse(body: bytes) -> Any:
    """The value of a JSON document.

    >>> parse(b'{"instances": [NaN, -Infinity, 1]} and more')
    {'instances': [nan, -inf, 1]}

    Raises:
        ServingError: INVALID_ARGUMENT in rapidjson's words.
    """
    reader = _Reader(body.decode("utf-8", "surrogateescape").removeprefix("\ufeff"))
    if not reader.peek():
        raise reader.fail("The document is empty.")
    while True:
        value = _next(reader)
        while True:  # close every container that ends after this value
            if not reader.open:
                return value
            top = reader.open[-1]
            _put(top, value)
            if not _closes(reader, top):
                break
            value = reader.open.pop().value


def _next(reader: _Reader) -> Any:
    """The next value that is whole: a scalar, or a container without content; others are opened on the way."""
    while True:
        _read_name(reader)
        character = reader.peek()
        if character not in _OPENING or not character:
            return _scalar(reader, character)
        reader.at += 1
        value: Any = [] if character == "[" else {}
        if reader.peek() == _OPENING[character]:
            reader.at += 1
            return value
        reader.open.append(_Open(value, _OPENING[character]))


def _read_name(reader: _Reader) -> None:
    """In an object, the name of the member and its colon."""
    if not reader.open or reader.open[-1].closing == "]":
        return
    if reader.peek() != '"':
        raise reader.fail("Missing a name for object member.")
    reader.open[-1].name = _string(reader)
    if reader.peek() != ":":
        raise reader.fail("Missing a colon after a name of object member.")
    reader.at += 1


def _put(top: _Open, value: Any) -> None:
    if isinstance(top.value, list):
        top.value.append(value)
    else:
        top.value.setdefault(top.name, value)  # of equal names Serving finds the first


def _closes(reader: _Reader, top: _Open) -> bool:
    """Whether the container ends here; else a comma is read."""
    character = reader.peek()
    if character == top.closing:
        reader.at += 1
        return True
    if character != ",":
        what = "an array element" if top.closing == "]" else "an object member"
        raise reader.fail(f"Missing a comma or {top.closing} after {what}.")
    reader.at += 1
    return False


def _scalar(reader: _Reader, character: str) -> Any:
    if character == '"':
        return _string(reader)
    word = _WORD.match(reader.text, reader.at)
    if word:
        reader.at = word.end()
        return _WORDS[word.group()]
    number = _NUMBER.match(reader.text, reader.at)
    if not number:
        raise reader.fail("Invalid value.")
    reader.at = number.end()
    return float(number.group()) if number["float"] else _integer(number.group())


def _integer(digits: str) -> int | float:
    """An integer where 64 bits hold it, else the nearest double."""
    value = int(digits) if len(digits) <= _LONGEST_INTEGER else 2**64
    return value if -(2**63) <= value < 2**64 else float(digits)


def _string(reader: _Reader) -> str:
    try:
        text, reader.at = scanstring(reader.text, reader.at + 1, True)  # noqa: FBT003 - the argument has no other form
    except json.JSONDecodeError as error:
        reader.at = error.pos
        raise reader.fail(_string_error(error.msg)) from error
    return str(text)


def _string_error(message: str) -> str:
    if message.startswith("Unterminated"):
        return "Missing a closing quotation mark in string."
    if "uXXXX" in message:
        return "Incorrect hex digit after \\u escape in string."
    return "Invalid escape character in string." if "escape" in message else "Invalid encoding in string."
