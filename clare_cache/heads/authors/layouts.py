"""Names and shapes in the authors' checkpoints, one class a system, and what they tell of options.

Sources: the released RINE and UniversalFakeDetect weights, CLaRE's state dict, CoOp's prompt
learner. Opens no file and builds no head.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from clare_cache.heads.features import VIT_L14_SHAPES
from clare_cache.heads.protocol import TextTower

Tensors = Mapping[str, Tensor]
PROMPT_LEARNER = "prompt_learner."
FROZEN = ("token_prefix", "token_suffix", "logit_scale")
"""What a checkpoint repeats of its text tower."""
CLIP_PREFIXES = ("clip.", "clip_model.", "image_encoder.", "text_encoder.", "visual.",
                 "transformer.", "token_embedding.", "ln_final.")  # fmt: skip
CLIP_NAMES = ("positional_embedding", "text_projection")


@dataclass
class Plan:
    """How to build a head from a file: options and row shapes read off its tensors, those tensors,
    what the text tower must agree with, what is left aside, and what is wrong.

    `untold` are options that the file says nothing about.
    """

    kept: dict[str, Tensor] = field(default_factory=dict)
    frozen: dict[str, Tensor] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    untold: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)

    def shape_of(self, name: str, n_axes: int) -> tuple[int, ...]:
        """The shape of a kept tensor; if it is not so, a fault and ones."""
        if name not in self.kept:
            self.faults.append(f"{name}: expected a tensor with {n_axes} axes, found none so named")
        elif self.kept[name].ndim != n_axes:
            found = tuple(self.kept[name].shape)
            self.faults.append(f"{name}: expected a tensor with {n_axes} axes, found {found}")
        else:
            return tuple(self.kept[name].shape)
        return (1,) * n_axes

    def read_prompts(self, prefix: str) -> None:
        """Options of the prompt learner whose tensors have this prefix."""
        name = f"{prefix}ctx"
        is_specific = name in self.kept and self.kept[name].ndim == 3
        is_conditional = any(n.startswith(f"{prefix}meta_net.") for n in self.kept)
        self.options |= {
            "prompts": "cocoop" if is_conditional else "coop",
            "n_context": self.shape_of(name, 3 if is_specific else 2)[-2],
            "class_specific": is_specific,
        }
        self.untold += ("class_position",)


class Layout(ABC):
    """One system's checkpoint of our head `family`.

    `exportable` says which values of an option its authors' code can compute.
    """

    family: ClassVar[str]
    exportable: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @abstractmethod
    def plan(self, tensors: Tensors, given: Mapping[str, Any], text: TextTower | None) -> Plan:
        """What the tensors tell, with the options `given` by the user."""

    def name_of(self, ours: str) -> str:
        """The authors' name of a tensor of the head."""
        return ours

    def shape_of(self, ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that they give it."""
        return shape

    def wrap(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """What their file holds at its top."""
        return dict(tensors)


class RineLayout(Layout):
    """A plain dictionary with the names that our head has too, without CLIP."""

    family = "rine"
    exportable: ClassVar = {"aggregation": ("importance",)}

    def plan(self, tensors: Tensors, given: Mapping[str, Any], text: TextTower | None) -> Plan:
        plan = Plan(untold=("contrastive_weight", "dropout"))
        for name, value in tensors.items():
            if "clip" in name:
                plan.ignored.append(name)
            else:
                plan.kept[name] = value
        _, n_blocks, width = plan.shape_of("alpha", 3)
        _, clip_width = plan.shape_of("proj1.1.weight", 2)
        depth = sum(n.startswith("proj1.") and n.endswith(".weight") for n in plan.kept)
        plan.options = {"depth": max(depth, 1), "width": width}
        plan.shapes = {"clip_block_cls": (n_blocks, clip_width)}
        if given.get("aggregation", "importance") != "importance" and "alpha" in plan.kept:
            # The authors' ablations keep it in the file, unused.
            plan.ignored.append("alpha")
            del plan.kept["alpha"]
        return plan


class UfdLayout(Layout):
    """The last layer alone, as released; or, while training, all of CLIP with `fc` at the end."""

    family = "linear"

    def plan(self, tensors: Tensors, given: Mapping[str, Any], text: TextTower | None) -> Plan:
        plan = Plan()
        prefix = "fc." if any(name.startswith("fc.") for name in tensors) else ""
        for name, value in tensors.items():
            if name.startswith(prefix):
                plan.kept[name.removeprefix(prefix)] = value
            else:
                plan.ignored.append(name)
        plan.shapes = {"clip_embedding": (plan.shape_of("weight", 2)[1],)}
        return plan

    def name_of(self, ours: str) -> str:
        return ours.removeprefix("fc.")


class ClareLayout(Layout):
    """The whole model's state: CLIP's two towers, the fusion layers, the prompt learner."""

    family = "clare"
    exportable: ClassVar = {
        "attention": ("cross_attention", "map_bias"),
        "channel": ("gate",),
        "regions": (False,),
    }
    unused = "conv_align."

    def plan(self, tensors: Tensors, given: Mapping[str, Any], text: TextTower | None) -> Plan:
        plan = Plan(untold=("train", "dropout"))
        for name, value in tensors.items():
            if name.startswith((*CLIP_PREFIXES, self.unused)) or name in CLIP_NAMES:
                plan.ignored.append(name)
            elif name.removeprefix(PROMPT_LEARNER) in FROZEN:
                plan.frozen[name.removeprefix(PROMPT_LEARNER)] = value
            else:
                plan.kept[name] = value
        plan.read_prompts(PROMPT_LEARNER)
        width, n_embedded = plan.shape_of("image_proj.weight", 2)
        is_crossed = any(name.startswith("attn_pool.pos_embed_") for name in plan.kept)
        table = "attn_pool.pos_embed_kv" if is_crossed else "attn_pool.positional_embedding"
        n_tokens = plan.shape_of(table, 2)[0]
        n_channels = plan.shape_of("conv.weight", 4)[1]
        plan.options["attention"] = "cross_attention" if is_crossed else "map_bias"
        side = VIT_L14_SHAPES["error_map"][1]
        plan.remarks = (f"the size of error maps is not in the file: taken as {side}×{side}",)
        plan.shapes = {
            "error_map": (n_channels, side, side),
            "clip_patch_tokens": (max(n_tokens - 1, 1), width),
            "clip_embedding": (n_embedded,),
        }
        return plan

    def name_of(self, ours: str) -> str:
        if ours.startswith("attn_pool.map_proj."):
            _, _, number, kind = ours.split(".")
            return f"attn_pool.projection_loss_map_{int(number) + 1}.{kind}"
        return ours.replace("map_proj.", "conv.", 1) if ours.startswith("map_proj.") else ours

    def shape_of(self, ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        # 1×1 convolutions there are linear layers here.
        return (*shape, 1, 1) if "map_proj." in ours and len(shape) == 2 else shape


class PromptLayout(Layout):
    """CoOp's prompt learner alone; also read when it is part of a whole model's state."""

    family = "prompt_tuning"

    def plan(self, tensors: Tensors, given: Mapping[str, Any], text: TextTower | None) -> Plan:
        plan = Plan()
        for name, value in tensors.items():
            if name.startswith(CLIP_PREFIXES) or name in CLIP_NAMES:
                plan.ignored.append(name)
            elif name.removeprefix(PROMPT_LEARNER) in FROZEN:
                plan.frozen[name.removeprefix(PROMPT_LEARNER)] = value
            else:
                plan.kept[name.removeprefix(PROMPT_LEARNER)] = value
        plan.read_prompts("")
        if text is not None:
            plan.shapes = {"clip_embedding": (text.output_width,)}
        return plan

    def name_of(self, ours: str) -> str:
        return ours.removeprefix(PROMPT_LEARNER)

    def wrap(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        # Dassl's loader asks for an epoch, in order to print it.
        return {"state_dict": tensors, "epoch": 0}


LAYOUTS: dict[str, Layout] = {
    "rine": RineLayout(),
    "ufd": UfdLayout(),
    "clare": ClareLayout(),
    "prompt_tuning": PromptLayout(),
}
"""By the name that `--family` takes."""
