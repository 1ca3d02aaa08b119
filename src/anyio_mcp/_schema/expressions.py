r"""Regular expressions of a schema, by an engine that takes linear time.

JSON Schema's are those of ECMA 262 (https://json-schema.org/draft/2020-12/json-schema-core#section-6.4).
What all dialects of them read alike, and what has a meaning that can be written down for Rust's engine
(https://docs.rs/regex), is translated; the rest (look-around, back-references, `\p{...}`, flags) is refused,
never guessed. Rust's engine takes at most time in proportion to the size of the expression times that of
the text (https://docs.rs/regex/latest/regex/#untrusted-input). Both are known before: `weight` is counted
while translating, so a repetition counts as often as it is written out.

pydantic brings that engine, so nothing new is depended on. Measured with pydantic-core 2.50, on a 3 GHz
core: at worst 25 ns for each byte of text and unit of weight, and 20 ns a byte where the weight is so small
that the engine always finds room for its tables; 1 microsecond for each unit of weight to compile.
"""

from __future__ import annotations

import re
from typing import Final, final

from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_LENGTH: Final = 2_000
"""Characters of one expression."""

MAX_WEIGHT: Final = 2_000
"""Weight of one expression: 2 milliseconds to compile."""

_LIGHT: Final = 10
"""Up to this weight the engine's tables (2^10 states) fit into its cache, whatever the text is."""

_UNITS_A_STEP: Final = 40
"""Units (a byte of text for each of weight, 25 ns) that count as one step of a microsecond."""

MOST_STEPS_AT_ONCE: Final = 20_000
"""Steps one match may take: it cannot be interrupted."""

_QUANTIFIER: Final = re.compile(r"[*+?]\??|\{(\d{1,5})(,(\d{1,5})?)?\}\??", re.ASCII)
_HEX: Final = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")

_SPACE: Final = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
_CLASSES: Final = {
    "d": ("[0-9]", 1),
    "D": ("[^0-9]", 12),
    "w": ("[0-9A-Za-z_]", 1),
    "W": ("[^0-9A-Za-z_]", 12),
    "s": (f"[{_SPACE}]", 30),
    "S": (f"[^{_SPACE}]", 30),
}
"""What a class is to Rust, where `\\d` is every digit of Unicode, and what it weighs."""

_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_ANY: Final = r"[^\n\r\x{2028}\x{2029}]"
_SYNTAX: Final = frozenset("^$\\.*+?()[]{}|/-")


@final
class UnsupportedExpressionError(ValueError):
    """An expression that is not understood, or too heavy."""


@final
class Expression:
    """One regular expression. Raises `UnsupportedExpressionError`, a `ValueError`."""

    __slots__ = ("_validator", "weight")

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_LENGTH:
            raise UnsupportedExpressionError("a regular expression that is too long")
        translated, self.weight = _Translation(pattern).result()
        try:
            self._validator = SchemaValidator(
                core_schema.str_schema(pattern=translated, regex_engine="rust-regex")
            )
        except SchemaError as error:
            raise UnsupportedExpressionError("a regular expression that is none") from error

    def cost(self, text: str) -> int:
        """Steps that `matches` may take. Past `MOST_STEPS_AT_ONCE` do not call it."""
        units = 4 * len(text) if not text.isascii() else len(text)
        return 1 + units * (1 if self.weight <= _LIGHT else self.weight) // _UNITS_A_STEP

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere in `text`, which must have no lone surrogates."""
        return self._validator.isinstance_python(text)


@final
class _Translation:
    """One pass over a pattern. The weight of a group is kept until its quantifier is known."""

    __slots__ = ("_at", "_atom", "_groups", "_out", "_pattern", "_weight")

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._out: list[str] = []
        self._weight = 0
        self._groups: list[int] = []
        self._atom: int | None = None
        """What the part weighs that a quantifier would repeat; None where there is none."""

    def result(self) -> tuple[str, int]:
        pattern = self._pattern
        while self._at < len(pattern):
            self._next(pattern[self._at])
            if self._weight > MAX_WEIGHT:
                raise UnsupportedExpressionError("a regular expression that is too heavy")
        if self._groups:
            raise _unknown("(")
        return "".join(self._out), self._weight

    def _next(self, char: str) -> None:
        match char:
            case "(":
                self._open()
            case ")":
                if not self._groups:
                    raise _unknown(char)
                self._emit(")")
                inner, self._weight = self._weight, self._groups.pop()
                self._weigh(inner)
            case "|":
                self._emit("|")
                self._weight += 1
                self._atom = None
            case "^" | "$":
                self._emit(r"\A" if char == "^" else r"\z")
                self._weight += 1
                self._atom = None
            case "*" | "+" | "?" | "{":
                self._repeat()
            case "[":
                self._class()
            case "\\":
                self._at += 1
                self._escape()
            case ".":
                self._emit(_ANY)
                self._weigh(15)
            case "]" | "}":
                raise _unknown(char)
            case _:
                self._emit(_literal(char))
                self._weigh(1 if char.isascii() else 4)

    def _emit(self, text: str, length: int = 1) -> None:
        self._out.append(text)
        self._at += length

    def _weigh(self, weight: int) -> None:
        self._atom = max(weight, 1)
        self._weight += self._atom

    def _open(self) -> None:
        rest = self._pattern[self._at : self._at + 70]
        prefix = re.match(r"\((?:\?:|\?<[A-Za-z_]\w{0,60}>)?(?!\?)", rest, re.ASCII)
        if prefix is None or len(self._groups) > 50:
            raise _unknown("(?")
        self._emit("(?:", len(prefix[0]))
        self._groups.append(self._weight)
        self._weight = 0
        self._atom = None

    def _repeat(self) -> None:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None or self._atom is None:
            raise _unknown(self._pattern[self._at])
        self._emit(found[0], len(found[0]))
        # `{n,}` is n times and once more; the engine writes each of them out.
        times = 1 if found[1] is None else max(int(found[3] or 0), int(found[1]) + (found[2] == ","), 1)
        self._weight += self._atom * (times - 1) + 1
        self._atom = None

    def _escape(self) -> None:
        char = self._pattern[self._at : self._at + 1]
        if char in _CLASSES and char:
            text, weight = _CLASSES[char]
            self._emit(text)
            self._weigh(weight)
        elif char == "b":
            self._emit(r"(?-u:\b)")
            self._weight += 2
            self._atom = None
        else:
            literal = self._character()
            self._out.append(_literal(literal))
            self._weigh(1 if literal.isascii() else 4)

    def _character(self) -> str:
        """The character that an escape stands for; `_at` is behind the backslash."""
        char = self._pattern[self._at : self._at + 1]
        after = self._pattern[self._at + 1 : self._at + 2]
        if char in _CONTROLS and char and not (char == "0" and after.isdecimal()):
            self._at += 1
            return _CONTROLS[char]
        found = _HEX.match(self._pattern, self._at)
        if found is not None:
            self._at = found.end()
            return _scalar(int(found[1] or found[2] or found[3], 16))
        if char in _SYNTAX and char:
            self._at += 1
            return char
        raise _unknown(f"\\{char}")

    def _class(self) -> None:
        self._at += 1
        negated = self._pattern.startswith("^", self._at)
        self._at += negated
        parts: list[str] = []
        weight = 0
        while not self._pattern.startswith("]", self._at):
            first, cost = self._member()
            weight += cost
            is_range = (
                self._pattern.startswith("-", self._at) and self._pattern[self._at + 1 : self._at + 2] != "]"
            )
            if not is_range:
                parts.append(first if len(first) > 1 else _literal(first))
                continue
            self._at += 1
            last, cost = self._member()
            if len(first) > 1 or len(last) > 1 or first > last:
                raise _unknown("[")
            weight += cost if last.isascii() else 12
            parts.append(f"{_literal(first)}-{_literal(last)}")
        if not parts:
            raise _unknown("[]")
        self._at += 1
        self._out.append(f"[{'^' if negated else ''}{''.join(parts)}]")
        self._weigh(1 + weight + (11 if negated else 0))

    def _member(self) -> tuple[str, int]:
        """One character of a class and what it adds to the weight, or a class in the class, translated."""
        char = self._pattern[self._at : self._at + 1]
        if not char:
            raise _unknown("[")
        if char != "\\":
            self._at += 1
            return char, 0 if char.isascii() else 4
        self._at += 1
        char = self._pattern[self._at : self._at + 1]
        if char in _CLASSES and char:
            self._at += 1
            text, weight = _CLASSES[char]
            return text, weight - 1
        if char == "b":
            self._at += 1
            return "\b", 0
        literal = self._character()
        return literal, 0 if literal.isascii() else 4


def _literal(char: str) -> str:
    return f"\\x{{{ord(_scalar(ord(char))):x}}}"


def _scalar(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise _unknown("\\u")
    return chr(code)


def _unknown(what: str) -> UnsupportedExpressionError:
    return UnsupportedExpressionError(f"a regular expression with {what!r}, which is not understood")
