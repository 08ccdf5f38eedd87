"""Networks of a latent diffusion model from their configurations, without weights.

The configurations kept in this package are those of the published models, by name: `sd21`, `sd15`,
and `tiny`, which is ours.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

PARTS = ("unet", "vae", "text_encoder", "scheduler")


def architecture(name: str) -> dict[str, dict[str, Any]]:
    """The configurations kept in this package under `sd21`, `sd15` or `tiny`, by part."""
    folder = files("clare_cache.backbones") / name
    return {part: json.loads((folder / f"{part}.json").read_text("utf-8")) for part in PARTS}


def build_networks(configs: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any, Any]:
    """UNet, VAE and text encoder of the given architectures, freshly initialised in float32."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel.from_config(dict(configs["unet"]))
    vae = AutoencoderKL.from_config(dict(configs["vae"]))
    return unet, vae, CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
