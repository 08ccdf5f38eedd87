"""Which frames of a video are taken, and which videos must stay in one split."""

import re
from collections.abc import Callable, Iterable, Sequence

PICKS: dict[str, str] = {
    "spread": "evenly spread over the sorted frames",
    "clare-first": "the first N in the order of the list: what CLaRE's loader does",
    "deepfakebench-first": "the first N of the sorted frames: what DeepfakeBench's loader does",
}
"""Rules for choosing N frames of a video. Both loaders mean to spread and take the first N."""

_NUMBER = re.compile(r"(\d+)")


def pick_frames(frames: Sequence[str], n: int | None, pick: str) -> list[str]:
    """At most `n` of a video's frames (all when None), as the rule `pick` says.

    Spread: frame floor(k·len/n) for k = 0 … n-1 of the frames in natural order (2 before 10).
    """
    ordered = list(frames) if pick == "clare-first" else sorted(frames, key=natural)
    if n is None or len(ordered) <= n:
        return ordered
    if pick == "spread":
        return [ordered[k * len(ordered) // n] for k in range(n)]
    return ordered[:n]


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts `2.png` before `10.png`."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in _NUMBER.split(name) if part
    ]


def frame_number(name: str) -> int | None:
    """The last number in a frame's file name, or None."""
    numbers = _NUMBER.findall(name.rpartition("/")[2].rpartition(".")[0])
    return int(numbers[-1]) if numbers else None


def linked(ties: Iterable[tuple[str, ...]]) -> Callable[[str], str]:
    """A function that gives each name its group, when the names of one tie share a group.

    A face swap of video 054 onto 071 ties the two, and so on from tie to tie; the group is called
    by its first name in order.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, *others in ties:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return root
