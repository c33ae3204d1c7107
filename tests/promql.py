"""A strict parser of the PromQL that our rules and our dashboard are written in: what is not understood is refused.

It stands in for `promtool check rules`, which is a Go program: syntax, the types of arguments (a range where a function
wants one), and the metrics and labels that an expression names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"\s*(?:(?P<duration>\d+(?:ms|[smhdwy])(?![\w.]))|(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-zA-Z_:][\w:]*)"
    r'|(?P<text>"(?:[^"\\]|\\.)*")|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){}\[\],=<>]))'
)
AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk"}
RANGE = {"rate", "increase", "deriv", "max_over_time"}
"""Functions of a range."""
INSTANT = {"absent": 1, "time": 0, "histogram_quantile": 2}
"""Functions of instant vectors or numbers, with the number of arguments."""
BINARY = [["or"], ["and", "unless"], ["==", "!=", ">", "<", ">=", "<="], ["+", "-"], ["*", "/", "%"]]


@dataclass
class Expression:
    """What an expression names: by metric, the labels that it is selected by; and the labels of groups."""

    selectors: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    groups: list[tuple[set[str], list[str]]] = field(default_factory=list)
    """Of each aggregation: the labels it keeps, and the metrics below it."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        text = text.rstrip()
        while place < len(text):
            found = TOKEN.match(text, place)
            if found is None:
                raise ValueError(f"not understood: {text[place:]!r}")
            self.tokens.append((str(found.lastgroup), str(found[str(found.lastgroup)])))
            place = found.end()
        self.place = 0
        self.found = Expression()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def take(self, wanted: str | None = None) -> str:
        kind, text = self.peek()
        if wanted is not None and text != wanted:
            raise ValueError(f"expected {wanted!r}, found {text or kind!r}")
        self.place += 1
        return text

    def binary(self, level: int = 0) -> str:
        """Returns the type: scalar, vector or range."""
        if level == len(BINARY):
            return self.primary()
        left = self.binary(level + 1)
        while self.peek()[1] in BINARY[level]:
            sign = self.take()
            if self.peek()[1] in {"on", "ignoring"}:
                self.take()
                self.labels()
            right = self.binary(level + 1)
            if "range" in {left, right}:
                raise ValueError(f"{sign} of a range")
            if sign in {"and", "or", "unless"} and "scalar" in {left, right}:
                raise ValueError(f"{sign} of a number")
            left = "vector" if "vector" in {left, right} else "scalar"
        return left

    def primary(self) -> str:
        kind, text = self.peek()
        if kind == "number":
            self.take()
            return "scalar"
        if text == "(":
            self.take()
            inner = self.binary()
            self.take(")")
            return inner
        if kind != "name":
            raise ValueError(f"expected an expression, found {text or kind!r}")
        self.take()
        if text in AGGREGATIONS:
            return self.aggregation()
        if self.peek()[1] == "(":
            return self.function(text)
        return self.selector(text)

    def aggregation(self) -> str:
        kept: set[str] = set()
        if self.peek()[1] == "by":
            self.take()
            kept = set(self.labels())
        before = len(self.found.selectors)
        self.take("(")
        if self.binary() != "vector":
            raise ValueError("an aggregation wants an instant vector")
        self.take(")")
        self.found.groups.append((kept, [name for name, _ in self.found.selectors[before:]]))
        return "vector"

    def function(self, name: str) -> str:
        if name not in RANGE and name not in INSTANT:
            raise ValueError(f"unknown function {name}")
        self.take("(")
        types = []
        while self.peek()[1] != ")":
            types.append(self.binary())
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")
        if name in RANGE and types != ["range"]:
            raise ValueError(f"{name} wants a range, found {types}")
        if name in INSTANT and (len(types) != INSTANT[name] or "range" in types):
            raise ValueError(f"{name} wants {INSTANT[name]} instant arguments, found {types}")
        return "scalar" if name == "time" else "vector"

    def selector(self, name: str) -> str:
        matchers: dict[str, str] = {}
        if self.peek()[1] == "{":
            self.take()
            while self.peek()[1] != "}":
                label = self.take()
                if self.peek()[1] not in {"=", "!=", "=~", "!~"}:
                    raise ValueError(f"expected a matcher after {label}")
                self.take()
                if self.peek()[0] != "text":
                    raise ValueError(f"expected a quoted value of {label}")
                matchers[label] = self.take()[1:-1]
                if self.peek()[1] != "}":
                    self.take(",")
            self.take("}")
        self.found.selectors.append((name, matchers))
        if self.peek()[1] != "[":
            return "vector"
        self.take()
        if self.peek()[0] != "duration":
            raise ValueError(f"expected a duration, found {self.peek()[1]!r}")
        self.take()
        self.take("]")
        return "range"

    def labels(self) -> list[str]:
        self.take("(")
        names = []
        while self.peek()[1] != ")":
            if self.peek()[0] != "name":
                raise ValueError(f"expected a label, found {self.peek()[1]!r}")
            names.append(self.take())
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")
        return names


def parse(text: str) -> Expression:
    """What an expression names.

    Raises:
        ValueError: it is none, or one that is beyond this parser.
    """
    parser = _Parser(text)
    if parser.binary() == "range":
        raise ValueError("a range is no result")
    if parser.peek()[0] != "end":
        raise ValueError(f"not understood from {parser.peek()[1]!r} on")
    return parser.found
