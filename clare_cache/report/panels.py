"""A drawing of the page with its words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One drawing (SVG text) with its title and legend: (colour slot, name, number)."""

    svg: str
    title: str
    legend: tuple[tuple[int, str, str], ...] = ()
    tag: str = ""
