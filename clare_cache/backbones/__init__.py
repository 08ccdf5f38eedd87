"""Frozen networks that look at every image once: Stable Diffusion's error map and CLIP.

The only door to diffusers, transformers and open_clip. Importing this package imports none of
them, nor torch: networks are loaded by the functions here, when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.backbones.features import (
    DEFAULT_FEATURES,
    FEATURE_SPELLINGS,
    FEATURES,
    backbone_of,
    settings_of,
)
from clare_cache.errors import BackboneError, raise_faults

if TYPE_CHECKING:
    from clare_cache.backbones.protocol import Backbone
    from clare_cache.backbones.text import ClipTextTower

__all__ = [
    "DEFAULT_FEATURES",
    "FEATURES",
    "FEATURE_SPELLINGS",
    "NOWHERE",
    "ClipConfig",
    "ErrorMapConfig",
    "backbone_of",
    "load_backbones",
    "load_text_tower",
    "settings_of",
]


NOWHERE = "meta"
"""PyTorch's device for shapes without numbers."""


def load_backbones(
    *,
    sd: str | None,
    clip: str | None,
    features: Sequence[str],
    error_map: ErrorMapConfig | None = None,
    clip_config: ClipConfig | None = None,
    device: str = "cpu",
    from_latents: bool = False,
    compiled: bool = False,
) -> list[Backbone]:
    """The backbones that `features` need, and no other network.

    With `from_latents` error maps are made of rows of `vae_latent` instead of pictures, without
    the VAE. `compiled` has Stable Diffusion's networks compiled. On the device NOWHERE they have no
    weights and take no memory: they tell what they would make, and cannot make it.

    `sd` and `clip` name the weights (see `load_stable_diffusion` and `load_clip`). Raises
    BackboneError when a feature is unknown or its weights are not named, all faults at once, and
    when the named CLIP has another architecture than a feature needs.
    """
    raise_faults(BackboneError, "features", _faults(sd=sd, clip=clip, features=features))
    needed = {backbone_of(feature) for feature in features}
    backbones: list[Backbone] = []
    if sd is not None and "error_map" in needed:
        from clare_cache.backbones.error_map import ErrorMapBackbone, ErrorMapFromLatent
        from clare_cache.backbones.stable_diffusion import load_stable_diffusion

        config = error_map or ErrorMapConfig()
        parts = load_stable_diffusion(
            sd, prompt=config.prompt, dtype=config.dtype, empty=device == NOWHERE
        )
        made = [feature for feature in features if backbone_of(feature) == "error_map"]
        kind = ErrorMapFromLatent if from_latents else ErrorMapBackbone
        backbones.append(kind(parts, config, features=made, device=device, compiled=compiled))
    if clip is not None and "clip" in needed:
        from clare_cache.backbones.clip_models import load_clip

        model = load_clip(clip, empty=device == NOWHERE)
        tower = model.image_backbone(clip_config or ClipConfig(), device=device)
        there = [spec.name for spec in tower.arrays]
        _refuse_others([f for f in features if backbone_of(f) == "clip"], there, clip=clip)
        backbones.append(tower)
    return backbones


def load_text_tower(clip: str, device: str = "cpu") -> ClipTextTower:
    """CLIP's frozen text tower alone, for prompt heads."""
    from clare_cache.backbones.clip_models import load_clip

    return load_clip(clip).text_tower(device=device)


def _refuse_others(asked: Sequence[str], made: Sequence[str], *, clip: str) -> None:
    raise_faults(
        BackboneError,
        f"CLIP {clip}",
        [f"{name}: expected one of {', '.join(made)}" for name in asked if name not in made],
        advice="clip_layer3_map is a ResNet's (RN50-quickgelu:openai), clip_patch_tokens and "
        "clip_block_cls are a vision transformer's (ViT-L-14-quickgelu:openai).",
    )


def _faults(*, sd: str | None, clip: str | None, features: Sequence[str]) -> list[str]:
    known = ", ".join(FEATURE_SPELLINGS)
    faults = [
        f"{feature}: expected one of {known}"
        for feature in features
        if backbone_of(feature) is None
    ]
    needed = {backbone_of(feature) for feature in features}
    if "error_map" in needed and sd is None:
        faults.append("error_map: expected Stable Diffusion weights, found none. Name them: `--sd`")
    if "clip" in needed and clip is None:
        faults.append("clip features: expected CLIP weights, found none. Name them: `--clip`")
    return faults
