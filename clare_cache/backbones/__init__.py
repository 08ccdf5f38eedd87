"""Frozen networks that look at every image once: Stable Diffusion's error map and CLIP.

The only door to diffusers, transformers and open_clip. Importing this package imports none of
them, nor torch: networks are loaded by the functions here, when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.errors import BackboneError, raise_faults

if TYPE_CHECKING:
    from clare_cache.backbones.protocol import Backbone
    from clare_cache.backbones.text import ClipTextTower

__all__ = [
    "DEFAULT_FEATURES",
    "FEATURES",
    "ClipConfig",
    "ErrorMapConfig",
    "load_backbones",
    "load_text_tower",
]

FEATURES = {
    "error_map": "error_map",
    "clip_patch_tokens": "clip",
    "clip_block_cls": "clip",
    "clip_embedding": "clip",
    "clip_layer3_map": "clip",
}
"""Array name → the backbone that makes it."""

DEFAULT_FEATURES = ("error_map", "clip_patch_tokens", "clip_block_cls", "clip_embedding")
"""What is made unless asked otherwise: all that Stable Diffusion and a vision transformer give."""


def load_backbones(
    *,
    sd: str | None,
    clip: str | None,
    features: Sequence[str],
    error_map: ErrorMapConfig | None = None,
    clip_config: ClipConfig | None = None,
    device: str = "cpu",
) -> list[Backbone]:
    """The backbones that `features` need, and no other network.

    `sd` and `clip` name the weights (see `load_stable_diffusion` and `load_clip`). Raises
    BackboneError when a feature is unknown or its weights are not named, all faults at once, and
    when the named CLIP has another architecture than a feature needs.
    """
    raise_faults(BackboneError, "features", _faults(sd=sd, clip=clip, features=features))
    needed = {FEATURES[feature] for feature in features}
    backbones: list[Backbone] = []
    if sd is not None and "error_map" in needed:
        from clare_cache.backbones.error_map import ErrorMapBackbone
        from clare_cache.backbones.stable_diffusion import load_stable_diffusion

        config = error_map or ErrorMapConfig()
        parts = load_stable_diffusion(sd, prompt=config.prompt, dtype=config.dtype)
        backbones.append(ErrorMapBackbone(parts, config, device=device))
    if clip is not None and "clip" in needed:
        from clare_cache.backbones.clip_models import load_clip

        tower = load_clip(clip).image_backbone(clip_config or ClipConfig(), device=device)
        made = [spec.name for spec in tower.arrays]
        _refuse_others([f for f in features if FEATURES[f] == "clip"], made, clip=clip)
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
    known = ", ".join(FEATURES)
    faults = [
        f"{feature}: expected one of {known}" for feature in features if feature not in FEATURES
    ]
    needed = {FEATURES.get(feature) for feature in features}
    if "error_map" in needed and sd is None:
        faults.append("error_map: expected Stable Diffusion weights, found none. Name them: `--sd`")
    if "clip" in needed and clip is None:
        faults.append("clip features: expected CLIP weights, found none. Name them: `--clip`")
    return faults
