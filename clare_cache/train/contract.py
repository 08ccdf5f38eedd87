"""What every head owes its callers, as checks that a user can run on a head of their own."""

import inspect
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clare_cache.errors import HeadError
from clare_cache.heads import HeadOutput, build_head, load_head, save_head
from clare_cache.heads.protocol import BankHead, Head, TextTower
from clare_cache.train.masks import Masks
from clare_cache.train.recording import RECORD_AT
from clare_cache.train.stack import Stack, stack_heads

N_IMAGES = 6
TOLERANCE = 1e-5
"""Of logits, relative to the largest: sums of another order."""

OUTPUTS = "two logits an image and one loss"

Rows = dict[str, Tensor]


def check_head(
    family: str,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    text: TextTower | None = None,
    **options: Any,
) -> dict[str, list[str]]:
    """What is asked of a head → the faults found there, over made-up features of these shapes.
    Without usable logits there is only that.

    Takes the arguments of `build_head`, and raises HeadError as that does.
    """

    def build(seed: int = 0) -> Head:
        head = build_head(family, shapes=shapes, text=text, seed=seed, **options)
        if isinstance(head, BankHead):
            head.remember([(_rows(head, n_images=4 * N_IMAGES), _labels(4 * N_IMAGES))])
        return head

    found: dict[str, list[str]] = {}

    def run(what: str, check: Callable[[], Iterator[str]]) -> None:
        try:
            found[what] = list(check())
        except (RuntimeError, HeadError) as error:
            found[what] = [_told(error, type(build()))]

    run(OUTPUTS, lambda: _outputs(build()))
    if found[OUTPUTS]:
        return found
    # A narrow head may begin with rectifiers that are all shut, and then keeps any promise.
    head = next((h for h in map(build, range(5)) if not _is_blind(h)), None)
    if head is None:
        found[OUTPUTS] = [f"expected other logits for another image, found the same {N_IMAGES}"]
        return found
    run("images do not see each other", lambda: _alone(head))
    run("evaluation is deterministic", lambda: _again(head))
    run("it reads what it names", lambda: _needs(head))
    run("half precision is computed in float32", lambda: _precision(head))
    run("its options are told", lambda: _options(head))
    run("a saved head loads as it was", lambda: _saved(build(), text))
    if not isinstance(head, BankHead):
        run("every parameter gets a gradient", lambda: _gradients(head))
        run("the seed decides the weights", lambda: _same_seed(build))
    if head.stackable:
        run("in a stack it is what it is alone", lambda: _stacked([build(1), build(2)]))
    return found


def _told(error: Exception, kind: type[Head]) -> str:
    """What was raised, and by which line of the head's own file."""
    file = inspect.getsourcefile(kind)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"{file}, line {lines[-1]}: " if lines else ""
    return f"{where}raised {type(error).__name__}: {str(error).splitlines()[0]}"


def _rows(head: Head, *, n_images: int = N_IMAGES) -> Rows:
    generator = torch.Generator().manual_seed(n_images)
    sizes = zip(head.needs, head.shapes.values(), strict=True)
    return {name: torch.randn(n_images, *size, generator=generator).abs() for name, size in sizes}


def _labels(n_images: int) -> Tensor:
    return torch.arange(n_images) % 2


class _Recording(Mapping[str, Tensor]):
    """Features that remember which arrays were looked at."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.read = rows, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def _outputs(head: Head) -> Iterator[str]:
    rows = _rows(head)
    for n_images in (1, N_IMAGES):
        for training in (True, False):
            output = head.train(training)({k: v[:n_images] for k, v in rows.items()})
            if not isinstance(output, HeadOutput):
                yield f"expected a HeadOutput, found {type(output).__name__}"
                return
            logits = output.class_logits
            if tuple(logits.shape) != (n_images, 2):
                yield f"class_logits: expected {(n_images, 2)}, found {tuple(logits.shape)}"
                return
            loss = head.loss(output, _labels(n_images))
            if loss.ndim or not torch.isfinite(loss):
                yield f"loss of {n_images} images: expected one finite number, found {loss}"


def _is_blind(head: Head) -> bool:
    scores = head.eval()(_rows(head)).score
    return bool((scores == scores[0]).all())


def _alone(head: Head) -> Iterator[str]:
    rows = _rows(head)
    together = head.eval()(rows).class_logits
    alone = torch.cat(
        [head({k: v[i : i + 1] for k, v in rows.items()}).class_logits for i in range(N_IMAGES)]
    )
    order = torch.arange(N_IMAGES).flip(0)
    turned = head({k: v[order] for k, v in rows.items()}).class_logits[order]
    yield from _differ("logits of an image alone", alone, together)
    yield from _differ("logits of a batch in another order", turned, together)


def _again(head: Head) -> Iterator[str]:
    rows = _rows(head)
    first, second = head.eval()(rows).class_logits, head(rows).class_logits
    if not torch.equal(first, second):
        yield f"expected the same logits again, found {_largest(first, second):.2g} between them"


def _needs(head: Head) -> Iterator[str]:
    rows = _rows(head)
    seen = _Recording(rows)
    head.eval()(seen)
    if unread := sorted(set(head.needs) - seen.read):
        yield f"expected to read {', '.join(head.needs)}, found {', '.join(unread)} unread"


def _precision(head: Head) -> Iterator[str]:
    rows = _rows(head)
    half = {name: value.half() for name, value in rows.items()}
    found = head.eval()(half).class_logits
    if found.dtype != torch.float32:
        yield f"float16 features: expected float32 logits, found {found.dtype}"
    else:
        same = head({k: v.float() for k, v in half.items()}).class_logits
        yield from _differ("logits of float16 features", found, same)


def _options(head: Head) -> Iterator[str]:
    known, told = set(head.option_rules), set(head.options)
    if known != told:
        yield f"expected options {sorted(known)} as in option_rules, found {sorted(told)}"
    if json.loads(json.dumps(head.options)) != head.options:
        yield f"expected options that JSON can hold, found {head.options}"


def _gradients(head: Head) -> Iterator[str]:
    rows = _rows(head)
    head.eval().zero_grad(set_to_none=True)
    head.loss(head(rows), _labels(N_IMAGES)).backward()
    for name, parameter in head.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield f"{name}: expected a gradient, found none; unused, or cut off on the way"


def _same_seed(build: Callable[[int], Head]) -> Iterator[str]:
    one, same, other = (build(seed).state_dict() for seed in (1, 1, 2))
    changed = [name for name in one if not torch.equal(one[name], same[name])]
    if changed:
        yield f"expected equal weights for equal seeds, found others in {', '.join(changed)}"
    if one and all(torch.equal(one[name], other[name]) for name in one):
        yield "expected other weights for another seed, found the same"


def _saved(head: Head, text: TextTower | None) -> Iterator[str]:
    rows = _rows(head)
    expected = head.eval()(rows).class_logits
    with tempfile.TemporaryDirectory() as folder:
        save_head(head, Path(folder), {})
        loaded, _ = load_head(Path(folder), text=text)
    yield from _differ("logits of the loaded head", loaded(rows).class_logits, expected)


def _stacked(heads: list[Head]) -> Iterator[str]:
    rows = _rows(heads[0])
    alone = [head.eval()(rows) for head in heads]
    scale = max(float(output.class_logits.detach().abs().max()) for output in alone)
    if stack_heads(heads) != [[0, 1]]:
        yield "expected two heads of other seeds to be stackable, found they are not alike"
        return
    stack = Stack(heads)
    scores = torch.stack([output.score for output in alone])
    yield from _differ("logits in a stack", stack.scores(rows), scores, scale=scale)
    for head in heads:
        head.train()
    losses = stack.losses(rows, _labels(N_IMAGES), seeds=[1, 2], masks=Masks("check"))
    if tuple(losses.shape) != (2,):
        yield f"losses in a stack: expected one for each of 2 heads, found {tuple(losses.shape)}"
        return
    given: dict[str, Any] = {"labels": _labels(N_IMAGES), "seeds": [1, 2], "masks": Masks("check")}
    for _ in range(RECORD_AT):
        stack.learn(rows, **given, is_live=torch.ones(2, dtype=torch.bool))
    other = {name: value.flip(0) for name, value in rows.items()}
    recorded, _ = stack.learn(other, **given, is_live=torch.ones(2, dtype=torch.bool))
    again = stack.losses(other, **given)
    yield from _differ("losses by the operations of an earlier step", recorded, again)


def _differ(
    what: str, found: Tensor, expected: Tensor, *, scale: float | None = None
) -> Iterator[str]:
    limit = TOLERANCE * (float(expected.detach().abs().max()) if scale is None else scale)
    largest = _largest(found, expected)
    if not largest <= limit:
        yield f"{what}: expected the same to {limit:.2g}, found {largest:.2g} between them"


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())
