"""Lists in a recipe → one head for each combination. Pure: mappings in, mappings out.

A list below `head.options`, `head.optimiser`, `head.seed` or `train` is an axis of the sweep, and
so is every `--set key=v1,v2`; a range (`{from: 1.0e-5, to: 1.0e-2, log: true}`, or
`1e-5..1e-2:log` on the command line) is an axis to draw from. Knows no store and trains nothing.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clare_cache.errors import HeadError, RecipeError, raise_faults
from clare_cache.fingerprint import canonical_json, fingerprint
from clare_cache.seeds import generator_for
from clare_cache.train.config import OptimiserConfig, TrainConfig

LABEL_CHARS = 80
"""A longer label ends in a hash instead of its settings."""

RANGE = re.compile(r"(?P<low>[^.]\S*?)\.\.(?P<high>\S+?)(?P<log>:log)?")
MOST_AGAIN = 1000
"""Draws in a row that bring nothing new: then the ranges hold fewer values than were asked for."""

HEAD_KEYS = ("seed", "order")
"""Keys of a head, beside its options and its optimiser, that may vary."""

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`, both included; whole numbers if both are. `log`: evenly spread
    on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """The value below which `share` (0..1) of the draws lie."""
        if self.log:
            value = math.exp(
                math.log(self.low) + share * (math.log(self.high) - math.log(self.low))
            )
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.is_whole else float(f"{value:.4g}")


@dataclass(frozen=True)
class Axis:
    """What varies: the place in a head or in `train`, e.g. ("options", "width"), and its values."""

    place: tuple[str, ...]
    values: tuple[Any, ...] | Range

    @property
    def name(self) -> str:
        return self.place[-1]

    @property
    def only(self) -> Any:
        """The value of an axis that does not vary."""
        return None if isinstance(self.values, Range) else self.values[0]

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return isinstance(self.values, Range) or len(self.values) != 1


@dataclass(frozen=True)
class Change:
    """One `--set`: a dotted key and the values it takes."""

    key: str
    values: tuple[Any, ...] | Range


Choose = Callable[[str, Sequence[Axis]], Iterable[Mapping[Axis, Any]]]
"""A head's label and its axes → the value of each axis, for every member to make."""


def parse_change(text: str) -> Change:
    """`train.lr=1e-3,1e-4`, `head.width=128` or `train.lr=1e-5..1e-2:log`.

    Raises RecipeError for anything else.
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise RecipeError(
            f"--set {text}: expected KEY=VALUE or KEY=V1,V2 (train.lr=1e-3,1e-4), found "
            f"{'no value' if not values.strip() else 'no key'}. Correct it."
        )
    if match := RANGE.fullmatch(values.strip()):
        low, high = read_value(match["low"]), read_value(match["high"])
        return Change(key.strip(), _range(low, high, bool(match["log"]), asked=f"--set {text}"))
    parts = values.strip().removeprefix("[").removesuffix("]").split(",")
    return Change(key.strip(), tuple(read_value(part.strip()) for part in parts))


def read_value(text: str) -> Any:
    """A number, true, false, null, or the text itself. YAML 1.1 would leave `1e-3` a text."""
    if text.lower() in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def label_of(head: Raw) -> str:
    """A head's name in its run: its label, or else its family, of a user's own the class."""
    return str(head.get("label") or head.get("family")).rpartition(":")[2]


def expand(
    recipe: Raw,
    changes: Sequence[Change] = (),
    *,
    sample: int | None = None,
    seeds: int = 1,
    choose: Choose | None = None,
    where: str = "recipe",
) -> dict[str, Any]:
    """The recipe with one head for each combination of its axes' values, then for each seed.

    Each new head has a label of its own and, under `settings`, what varied. `sample` draws that
    many combinations of each head instead of all, the same ones every time; ranges need it, or
    `choose`, which gives the combinations of a head's axes to try.
    Raises RecipeError with every fault.
    """
    heads = recipe.get("head")
    given = [heads] if isinstance(heads, Mapping) else heads
    if not isinstance(given, Sequence) or not all(isinstance(head, Mapping) for head in given):
        return dict(recipe)  # the schema says what is wrong
    faults: list[str] = []
    evaluate = [c for c in changes if c.key.startswith("evaluate.") and isinstance(c.values, tuple)]
    axes = _place_changes([c for c in changes if c not in evaluate], given, faults)
    base, of_train = _split_lists(recipe.get("train", {}), ("train",))
    for axis in [axis for axes_of_head in axes for axis in axes_of_head]:
        if axis.place[0] == "train" and not axis.varies:
            base = {**base, axis.name: axis.only}
    expanded: list[dict[str, Any]] = []
    renamed: dict[str, list[str]] = {}
    for head, set_here in zip(given, axes, strict=True):
        fixed, listed = _read_head(head)
        # What is said later counts: the command line over the file.
        every = {axis.place: axis for axis in (*of_train, *listed, *set_here)}
        mine = [axis for axis in every.values() if axis.varies or axis.place[0] != "train"]
        label = label_of(head)
        ranges = [axis.name for axis in mine if isinstance(axis.values, Range)]
        if ranges and sample is None and choose is None:
            faults.append(f"head {label}: {', '.join(ranges)} has a range; say --sample N")
            continue
        combined = _combine(mine, label, sample) if choose is None else choose(label, mine)
        for settings in combined:
            for offset in range(seeds):
                expanded.append(
                    _member(fixed, base, settings, offset if seeds > 1 else None, label=label)
                )
                renamed.setdefault(label, []).append(expanded[-1].get("label", label))
    raise_faults(RecipeError, where, faults, advice="Correct --set, or the recipe's lists.")
    found = {**recipe, "head": expanded}
    if base:
        found["train"] = base
    for change in evaluate:
        name = change.key.removeprefix("evaluate.")
        values = [] if isinstance(change.values, Range) else list(change.values)
        value = values if name in ("splits", "views") else values[0]
        found["evaluate"] = {**found.get("evaluate", {}), name: value}
    if expectations := recipe.get("expect"):
        found["expect"] = [_rename(item, renamed) for item in expectations]
    return found


def _rename(expectation: Any, renamed: Mapping[str, Sequence[str]]) -> Any:
    """What is expected of a head is expected of each that it became."""
    if not isinstance(expectation, Mapping) or not expectation.get("heads"):
        return expectation
    labels = [new for old in expectation["heads"] for new in renamed.get(str(old), [old])]
    return {**expectation, "heads": labels}


def _place_changes(
    changes: Sequence[Change], heads: Sequence[Raw], faults: list[str]
) -> list[list[Axis]]:
    """For each head the axes that the command line gives it."""
    found: list[list[Axis]] = [[] for _ in heads]
    for change in changes:
        places = [_place_of(change.key, head) for head in heads]
        if not any(places):
            families = ", ".join(dict.fromkeys(str(head.get("family")) for head in heads))
            faults.append(
                f"{change.key}: expected train.FIELD, head.OPTION or a full path such as "
                f"head.optimiser.lr, found nothing of that name in {families}"
            )
        for axes, place in zip(found, places, strict=True):
            if place:
                axes.append(Axis(place, change.values))
    return found


def _place_of(key: str, head: Raw) -> tuple[str, ...]:
    """Where a dotted key lies in this head, or () if it has no such thing."""
    # Only here, because heads import torch, and `recipe list` need not.
    from clare_cache.heads import find_head
    from clare_cache.heads.options import resolve_options
    from clare_cache.heads.protocol import BankHead

    section, _, rest = key.partition(".")
    try:
        family = find_head(str(head.get("family")))
    except HeadError:
        family = None  # said when the head is built
    options = family.option_rules if family is not None else {}
    if section == "train" and rest in TrainConfig.model_fields:
        return ("train", rest)
    is_trained = family is None or not issubclass(family, BankHead)
    if section == "train" and rest in OptimiserConfig.model_fields and is_trained:
        return ("optimiser", rest)
    if section in (label_of(head), head.get("family")) and rest:
        section = "head"
    if section != "head":
        return ()
    if rest in HEAD_KEYS:
        return (rest,)
    kind, _, name = rest.partition(".")
    if rest in options or (kind == "options" and name in options):
        return ("options", name or rest)
    if kind == "optimiser" and name in OptimiserConfig.model_fields and is_trained:
        return ("optimiser", name)
    if kind == "reads" and family is not None:
        given = head.get("options") or {}
        single = {k: v for k, v in given.items() if not isinstance(v, list | Mapping)}
        if name in family.axes_of(resolve_options(options, single)[0]):
            return ("reads", name)
    return ()


def _read_head(head: Raw) -> tuple[dict[str, Any], list[Axis]]:
    """A head without its lists, and the lists as axes."""
    fixed, axes = _split_lists({key: head[key] for key in HEAD_KEYS if key in head}, ())
    fixed = {**head, **fixed}
    for key in HEAD_KEYS:
        if isinstance(head.get(key), list):
            del fixed[key]
    for section in ("options", "optimiser", "reads"):
        if isinstance(head.get(section), Mapping):
            fixed[section], found = _split_lists(head[section], (section,))
            axes += found
    return fixed, axes


def _split_lists(values: Any, place: tuple[str, ...]) -> tuple[Any, list[Axis]]:
    if not isinstance(values, Mapping):
        return values, []
    fixed, axes = {}, []
    for key, value in values.items():
        if isinstance(value, list):
            numbers = (read_value(v) if isinstance(v, str) else v for v in value)
            axes.append(Axis((*place, str(key)), tuple(numbers)))
        elif isinstance(value, Mapping) and {"from", "to"} <= value.keys() <= {"from", "to", "log"}:
            low, high = (read_value(str(value[side])) for side in ("from", "to"))
            drawn = _range(low, high, value.get("log", False), asked=".".join((*place, str(key))))
            axes.append(Axis((*place, str(key)), drawn))
        else:
            fixed[key] = value
    return fixed, axes


def _range(low: Any, high: Any, log: bool, *, asked: str) -> Range:
    is_number = all(isinstance(v, int | float) and math.isfinite(v) for v in (low, high))
    if not is_number or low >= high or (log and low <= 0):
        raise RecipeError(
            f"{asked}: expected a range of numbers that rises{' from above 0' if log else ''}, "
            f"found {low}..{high}. Correct it."
        )
    return Range(low, high, log)


def _combine(axes: Sequence[Axis], label: str, sample: int | None) -> Iterator[dict[Axis, Any]]:
    """Axis → value for every combination, or for `sample` of them."""
    sizes = [0 if isinstance(axis.values, Range) else len(axis.values) for axis in axes]
    total = math.prod(sizes)
    if sample is None or (total and sample >= total):
        for values in itertools.product(*(tuple(axis.values) for axis in axes)):  # type: ignore[arg-type]
            yield dict(zip(axes, values, strict=True))
        return
    generator = generator_for(0, label, "sweep/sample")
    met: set[str] = set()
    n_again = 0
    while len(met) < sample and n_again < MOST_AGAIN:
        settings = {axis: _draw(axis, generator) for axis in axes}
        key = canonical_json([[*axis.place, value] for axis, value in settings.items()])
        n_again = n_again + 1 if key in met else 0
        if key not in met:
            met.add(key)
            yield settings


def _draw(axis: Axis, generator: np.random.Generator) -> Any:
    if isinstance(axis.values, Range):
        return axis.values.at(float(generator.random()))
    return axis.values[int(generator.integers(len(axis.values)))]


def _member(
    head: Raw, train: Any, settings: Mapping[Axis, Any], offset: int | None, *, label: str
) -> dict[str, Any]:
    """One head with its settings in place, named after those that vary."""
    made: dict[str, Any] = {**head}
    varied: dict[str, Any] = {}
    for axis, value in settings.items():
        if axis.place[0] == "train":
            made["train"] = {**train, **made.get("train", {}), axis.name: value}
        elif len(axis.place) == 1:
            made[axis.name] = value
        else:
            made[axis.place[0]] = {**made.get(axis.place[0], {}), axis.name: value}
        if axis.varies:
            varied[axis.name] = value
    if offset is not None:
        first = made.get("seed")
        made["seed"] = offset + (int(train.get("seed", 0)) if first is None else int(first))
        varied["seed"] = made["seed"]
    if varied:
        made |= {"label": _label(label, varied), "sweep": label, "settings": varied}
    return made


def _label(label: str, varied: Raw) -> str:
    spoken = "-".join([label, *(f"{key}{_spoken(value)}" for key, value in varied.items())])
    if len(spoken) <= LABEL_CHARS:
        return spoken
    return f"{label[: LABEL_CHARS - 17]}-{fingerprint(varied)}"


def _spoken(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)
