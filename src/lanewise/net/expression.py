"""Arithmetic of parameters, wherever the notation has a number: `width*4`, `(kernel-1)//2`.

    numbers    6  0.5  1e-3
    names      of parameters
    operators  + - * / // %  and the comparisons < <= > >= == !=, which are 1 or 0
    functions  round8 ceil floor int min max pick(condition, yes, no)

No spaces. `compile_expression` gives a function of the parameters; it is made once for each text.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from lanewise.net.elsewhere import nearest

Number: TypeAlias = int | float
Names: TypeAlias = Mapping[str, Number]
Term: TypeAlias = Callable[[Names], Number]

_TOKEN = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[a-z_]\w*|//|<=|>=|==|!=|.", re.ASCII)
_SIGNS = "+ - * / // % < > == ( )"
_LONGEST = 200
_MOST_BRACKETS = 30
_LARGEST = 1e15


class ExpressionError(ValueError):
    """An expression without a value: why, and what to do; to be told behind its text."""


def round8(number: Number) -> int:
    """The multiple of 8 that is nearest, but at least 8 and never less than 90 % of `number`: how
    the MobileNets round their widths."""
    rounded = max(8, int(number + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * number else rounded


COMPARISONS: dict[str, Callable[[Any, Any], Number]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
SUMS: dict[str, Callable[[Any, Any], Number]] = {"+": operator.add, "-": operator.sub}
PRODUCTS: dict[str, Callable[[Any, Any], Number]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
# Function → (how many arguments it takes, 0: one or more; what it does).
FUNCTIONS: dict[str, tuple[int, Callable[..., Number]]] = {
    "round8": (1, round8),
    "ceil": (1, math.ceil),
    "floor": (1, math.floor),
    "int": (1, int),
    "min": (0, lambda *numbers: min(numbers)),
    "max": (0, lambda *numbers: max(numbers)),
}
PICK = "pick"


def evaluate(text: str, names: Names) -> Number:
    """The value of an expression; a whole one is an int. ExpressionError: why there is none."""
    try:
        number = compile_expression(text)(names)
    except ExpressionError:
        raise
    except (ArithmeticError, ValueError) as error:
        raise ExpressionError(f"no value: {error}") from None
    if not abs(number) <= _LARGEST:
        raise ExpressionError(f"too large for any network; use at most {_LARGEST:g}")
    return int(number) if number == int(number) else number


def is_name(text: str) -> bool:
    """Whether a parameter or a block may be called so (in lower case)."""
    return re.fullmatch(r"[a-z_][a-z0-9_]*", text) is not None


def split_parts(text: str, separators: str) -> list[str]:
    """`(size)x3` → `(size)`, `x`, `3`: parts and the separators between them, in turn.

    An x separates behind a number, a `?` or a parenthesis only: it may be a letter of a name.
    """
    parts, start, position, depth, before = [], 0, 0, 0, ""
    while position < len(text):
        token = text[position] if text[position] in ":x" else ""
        if depth == 0 and token and token in separators and (token == ":" or _ends_number(before)):
            parts += [text[start:position], token]
            start, before = position + 1, ""
        else:
            match = _TOKEN.match(text, position)
            before = match[0] if match else text[position]
            depth += (before == "(") - (before == ")")
            token = before
        position += len(token)
    return [*parts, text[start:]]


def _ends_number(token: str) -> bool:
    return token in (")", "?") or token[:1].isdigit() or token[:1] == "."


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Term:
    """The expression as a function of the parameters; ExpressionError where it is none."""
    if len(text) > _LONGEST:
        raise ExpressionError(f"{len(text)} letters are too many; use at most {_LONGEST}")
    if text.count("(") > _MOST_BRACKETS:
        raise ExpressionError(f"too many parentheses; use at most {_MOST_BRACKETS}")
    tokens = _Tokens(text)
    term = _comparison(tokens)
    if tokens.next:
        raise tokens.unreadable()
    return term


class _Tokens:
    """The words and signs of an expression, first to last; `next` is "" at the end."""

    def __init__(self, text: str) -> None:
        self._left = _TOKEN.findall(text)[::-1]

    @property
    def next(self) -> str:
        return self._left[-1] if self._left else ""

    def take(self, *wanted: str) -> str:
        """Takes the next one; with `wanted`, only if it is one of them, else gives ""."""
        if not self._left or (wanted and self._left[-1] not in wanted):
            return ""
        return str(self._left.pop())

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.unreadable()

    def unreadable(self) -> ExpressionError:
        where = f"at `{self.next}`" if self.next else "at its end"
        return ExpressionError(f"makes no sense {where}; use numbers, parameters, {_SIGNS}")


def _comparison(tokens: _Tokens) -> Term:
    left = _chain(tokens, SUMS, _product)
    if sign := tokens.take(*COMPARISONS):
        compare, right = COMPARISONS[sign], _chain(tokens, SUMS, _product)
        return lambda names: int(compare(left(names), right(names)))
    return left


def _product(tokens: _Tokens) -> Term:
    return _chain(tokens, PRODUCTS, _unary)


def _chain(
    tokens: _Tokens,
    operators: dict[str, Callable[[Any, Any], Number]],
    part: Callable[[_Tokens], Term],
) -> Term:
    """Parts joined by operators of one rank, from left to right."""
    term = part(tokens)
    while sign := tokens.take(*operators):
        term = _operation(operators[sign], term, part(tokens))
    return term


def _operation(act: Callable[[Any, Any], Number], left: Term, right: Term) -> Term:
    return lambda names: act(left(names), right(names))


def _unary(tokens: _Tokens) -> Term:
    if tokens.take("-"):
        term = _unary(tokens)
        return lambda names: -term(names)
    return _atom(tokens)


def _atom(tokens: _Tokens) -> Term:
    token = tokens.next
    if tokens.take("("):
        term = _comparison(tokens)
        tokens.need(")")
        return term
    if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
        number = _number(tokens.take())
        return lambda names: number
    if not is_name(token):
        raise tokens.unreadable()
    tokens.take()
    return _call(token, tokens) if tokens.next == "(" else _parameter(token)


def _number(token: str) -> Number:
    return int(token) if token.isdecimal() else float(token)


def _parameter(name: str) -> Term:
    def value(names: Names) -> Number:
        if name not in names:
            known = f"the parameters are {', '.join(names)}" if names else "there are none"
            raise ExpressionError(f"no parameter {name}; {nearest(name, names)}{known}")
        return names[name]

    return value


def _call(name: str, tokens: _Tokens) -> Term:
    wanted = 3 if name == PICK else FUNCTIONS[name][0] if name in FUNCTIONS else -1
    if wanted < 0:
        known = [*FUNCTIONS, PICK]
        told = f"no function {name}; {nearest(name, known)}the functions are "
        raise ExpressionError(told + ", ".join(known))
    arguments = _arguments(tokens)
    if wanted and len(arguments) != wanted:
        raise ExpressionError(f"{name} takes {wanted} value(s), not {len(arguments)}")
    if name == PICK:
        condition, yes, no = arguments
        return lambda names: yes(names) if condition(names) else no(names)
    function = FUNCTIONS[name][1]
    return lambda names: function(*(argument(names) for argument in arguments))


def _arguments(tokens: _Tokens) -> list[Term]:
    tokens.need("(")
    arguments = [_comparison(tokens)]
    while tokens.take(","):
        arguments.append(_comparison(tokens))
    tokens.need(")")
    return arguments
