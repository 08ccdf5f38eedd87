"""An authors' checkpoint → our head, and back: the same tensors under the other's names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clare_cache.errors import HeadError, raise_faults
from clare_cache.heads.authors.archive import read_archive, write_archive
from clare_cache.heads.authors.layouts import FROZEN, LAYOUTS, PROMPT_LEARNER, ClareLayout, Layout
from clare_cache.heads.build import build_head
from clare_cache.heads.prompts import CLASS_NAMES
from clare_cache.heads.protocol import Head, TextTower

AUTHORS = tuple(LAYOUTS)
"""Names of systems whose checkpoints are read and written."""
SAME_TOWER = 2e-3
"""Largest relative difference of embeddings from one tower: half precision rounds by 5e-4."""

_OTHER_FAMILY = "Name the system whose authors saved the file, and the CLIP it was trained with."
_UNTOLD_BY_SHAPE = {("attention", "cross_attention_tokens")}
"""It has the parameters of cross_attention: no tensor tells them apart."""


@dataclass(frozen=True)
class Imported:
    """A head from its authors' file, in evaluation mode. `ignored` names what is in the file and
    not in the head; `remarks` say what the file left open and how it was taken."""

    head: Head
    ignored: tuple[str, ...]
    remarks: tuple[str, ...]


def import_head(
    path: Path, *, family: str, text: TextTower | None = None, **options: Any
) -> Imported:
    """The head in a checkpoint of `family`, one of AUTHORS; its options follow from the tensors.

    `options` are those that no tensor tells, such as `class_position`, or an ablation's
    `aggregation`. Prompt heads need the text tower; what the file repeats of it is compared.
    Raises HeadError naming every tensor that is absent, unknown or of another shape.
    """
    layout = _layout(family)
    archive = read_archive(Path(path))
    asked = f"checkpoint {path} as {family}"
    plan = layout.plan(archive.tensors, options, text)
    faults = list(plan.faults)
    faults += [
        f"option {name}: expected {plan.options[name]}, as its tensors are, found {options[name]}"
        for name in sorted(plan.options.keys() & options.keys())
        if options[name] != plan.options[name] and (name, options[name]) not in _UNTOLD_BY_SHAPE
    ]
    raise_faults(HeadError, asked, faults, advice=_OTHER_FAMILY)
    shapes = plan.shapes or None
    head = build_head(layout.family, shapes=shapes, text=text, **{**plan.options, **options})
    own = head.state_dict()
    expected = {layout.name_of(n): layout.shape_of(n, tuple(v.shape)) for n, v in own.items()}
    raise_faults(
        HeadError,
        asked,
        [*_tensor_faults(expected, plan.kept), *_tower_faults(head, plan.frozen)],
        advice=_OTHER_FAMILY,
    )
    head.load_state_dict(
        {n: plan.kept[layout.name_of(n)].float().reshape(value.shape) for n, value in own.items()}
    )
    untold = [
        f"{name} is not in the file: taken as {head.options[name]}"
        for name in plan.untold
        if name not in options
    ]
    return Imported(head.eval(), (*archive.beside, *plan.ignored), (*plan.remarks, *untold))


def export_head(head: Head, path: Path) -> tuple[str, ...]:
    """Writes the head as its authors' code does; returns remarks on what differs from their file.

    Raises HeadError for families and options that no authors' code has.
    """
    layout = next((found for found in LAYOUTS.values() if found.family == head.family), None)
    if layout is None:
        known = ", ".join(sorted(found.family for found in LAYOUTS.values()))
        raise HeadError(
            f"export of head {head.family}: expected one of {known}, found {head.family}. "
            "No authors' code reads others: use head.safetensors of the run itself."
        )
    faults = [
        f"option {name}: expected {' or '.join(map(str, values))}, found {head.options[name]}"
        for name, values in layout.exportable.items()
        if head.options.get(name, values[0]) not in values
    ]
    advice = "The authors' code has no such option: use head.safetensors of the run itself."
    raise_faults(HeadError, f"export of head {head.family}", faults, advice=advice)
    tensors = {
        layout.name_of(name): value.detach()
        .cpu()
        .reshape(layout.shape_of(name, tuple(value.shape)))
        for name, value in head.state_dict().items()
    }
    remarks: tuple[str, ...] = ()
    prefix = PROMPT_LEARNER if isinstance(layout, ClareLayout) else ""
    if head.text is not None:
        frozen = frozen_tensors(head.text, n_context=head.options["n_context"])
        for name in FROZEN[:2]:
            tensors[prefix + name] = frozen[name]
    if isinstance(layout, ClareLayout):
        tensors["logit_scale"] = frozen["logit_scale"]
        remarks = ("without CLIP's own tensors and the unused conv_align: load it with "
                   "strict=False",)  # fmt: skip
    write_archive(Path(path), tensors, layout.wrap(tensors))
    return remarks


def frozen_tensors(text: TextTower, *, n_context: int) -> dict[str, Tensor]:
    """What checkpoints of prompt heads repeat of their text tower, in float32 on the CPU.

    `token_prefix` (2, 1, W) embeds the start token; `token_suffix` (2, T−1−n_context, W) each
    class's name, `.`, end and padding; `logit_scale` () is the logarithm.
    """
    ids = text.tokenize([f"{name}." for name in CLASS_NAMES])[:, : text.context_length - n_context]
    embedded = text.embed(ids).detach().cpu().float()
    return {
        "token_prefix": embedded[:, :1].clone(),
        "token_suffix": embedded[:, 1:].clone(),
        "logit_scale": torch.tensor(text.logit_scale, dtype=torch.float64).log().float(),
    }


def _layout(family: str) -> Layout:
    if family not in LAYOUTS:
        raise HeadError(
            f"import: expected one of {', '.join(AUTHORS)}, found {family}. "
            "Name the system whose authors saved the file with --family."
        )
    return LAYOUTS[family]


def _tensor_faults(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]
) -> list[str]:
    faults = [
        f"{name}: expected {shape}, found no such tensor"
        for name, shape in expected.items()
        if name not in found
    ]
    for name, value in found.items():
        shape = tuple(value.shape)
        if name not in expected:
            faults.append(f"{name}: expected no such tensor, found {shape}")
        elif expected[name] != shape:
            faults.append(f"{name}: expected {expected[name]}, found {shape}")
        elif not value.is_floating_point():
            faults.append(f"{name}: expected floating point, found {value.dtype}")
        elif not value.isfinite().all():
            faults.append(f"{name}: expected finite numbers, found others")
    return faults


def _tower_faults(head: Head, found: Mapping[str, Tensor]) -> list[str]:
    """One phrase for each tensor of the file that another text tower must have given."""
    if head.text is None or not found:
        return []
    expected = frozen_tensors(head.text, n_context=head.options["n_context"])
    faults = []
    for name, value in found.items():
        shape = tuple(expected[name].shape)
        if tuple(value.shape) != shape:
            faults.append(f"{name}: expected {shape}, found {tuple(value.shape)}")
        elif (value.float() - expected[name]).abs().max() > SAME_TOWER * expected[name].abs().max():
            what = "its logit scale" if name == "logit_scale" else "its embeddings of the classes"
            faults.append(f"{name}: expected the text tower's, {what}, found other numbers")
    return faults
