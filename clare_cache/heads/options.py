"""What a head's options may be, as data. Knows no head and no recipe file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One constructor option: its default, which values it accepts, and that rule in words."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str


def choice(*values: str) -> Option:
    """One of the given words; the first is the default."""
    return Option(values[0], lambda value: value in values, f"one of {', '.join(values)}")


def count(default: int) -> Option:
    """A whole number from 1."""
    return Option(default, lambda value: _is_whole(value) and value >= 1, "a whole number from 1")


def weight(default: float) -> Option:
    """A finite number from 0."""
    return Option(default, lambda value: _is_number(value) and 0 <= value < float("inf"),
                  "a number from 0")  # fmt: skip


def probability(default: float) -> Option:
    """A number from 0 up to, not including, 1."""
    return Option(default, lambda value: _is_number(value) and 0 <= value < 1,
                  "a number from 0 to below 1")  # fmt: skip


def flag(default: bool) -> Option:
    """True or False."""
    return Option(default, lambda value: isinstance(value, bool), "true or false")


def words() -> Option:
    """Some text, or None, the default."""
    return Option(
        None,
        lambda value: value is None or (isinstance(value, str) and bool(value.strip())),
        "some words or nothing",
    )


def resolve_options(
    rules: Mapping[str, Option], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """All options, defaults filled in, and one phrase for each that is unknown or unacceptable."""
    allowed = ", ".join(sorted(rules)) if rules else "no options"
    faults = [f"option {name}: expected one of {allowed}, found {name}" if rules
              else f"option {name}: expected {allowed}, found {name}"
              for name in sorted(given.keys() - rules.keys())]  # fmt: skip
    faults += [
        f"option {name}: expected {rule.expected}, found {given[name]!r}"
        for name, rule in rules.items()
        if name in given and not rule.accepts(given[name])
    ]
    return {name: given.get(name, rule.default) for name, rule in rules.items()}, faults


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
