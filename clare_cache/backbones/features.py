"""Names of cached arrays → the backbone that makes them, and what a name says about its array.

Knows no network and imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clare_cache.backbones.config import ErrorMapConfig

ERROR_MAP, ERROR_MAP_SIGNED, VAE_LATENT = "error_map", "error_map_signed", "vae_latent"

FEATURES = {
    ERROR_MAP: "error_map",
    ERROR_MAP_SIGNED: "error_map",
    VAE_LATENT: "error_map",
    "clip_patch_tokens": "clip",
    "clip_block_cls": "clip",
    "clip_embedding": "clip",
    "clip_layer3_map": "clip",
}
"""Array name → the backbone that makes it. Error maps may have a suffix, see `ErrorMapName`."""

FEATURE_SPELLINGS = tuple(
    f"{name}[-tT][-nN]" if name in (ERROR_MAP, ERROR_MAP_SIGNED) else name for name in FEATURES
)
"""Every kind of array as messages spell it: T a timestep, N a number of draws."""

DEFAULT_FEATURES = ("error_map", "clip_patch_tokens", "clip_block_cls", "clip_embedding")
"""What is made unless asked otherwise: all that Stable Diffusion and a vision transformer give."""

_ERROR_MAP = re.compile(rf"({ERROR_MAP}|{ERROR_MAP_SIGNED})(?:-t(0|[1-9]\d*))?(?:-n([1-9]\d*))?")


@dataclass(frozen=True)
class ErrorMapName:
    """`error_map-t280-n8`, taken apart: timestep and number of draws where the name says them,
    None where the settings do."""

    name: str
    is_signed: bool
    timestep: int | None
    ensemble: int | None


def read_error_map_name(feature: str) -> ErrorMapName | None:
    """What the name of an error map says; None for any other name."""
    match = _ERROR_MAP.fullmatch(feature)
    if match is None:
        return None
    family, timestep, ensemble = match.groups()
    return ErrorMapName(
        name=feature,
        is_signed=family == ERROR_MAP_SIGNED,
        timestep=None if timestep is None else int(timestep),
        ensemble=None if ensemble is None else int(ensemble),
    )


def backbone_of(feature: str) -> str | None:
    """The backbone that makes an array of this name, or None."""
    if read_error_map_name(feature) is not None:
        return FEATURES[ERROR_MAP]
    return FEATURES.get(feature)


def settings_of(feature: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    """What the declared inputs of an array say of its backbone's settings: all that is stated,
    but for the timestep and the number of draws that its own name says, and what an error map
    says by leaving it out."""
    said = {key: value for key, value in declared.items() if value is not None}
    name = read_error_map_name(feature)
    if name is None:
        return said
    implied = {"latent_dtype": "float32"}
    if "dtype" in said:
        implied["vae_dtype"] = ErrorMapConfig(dtype=said["dtype"]).vae_arithmetic
    named = {key for key in ("timestep", "ensemble") if getattr(name, key) is not None}
    return implied | {key: value for key, value in said.items() if key not in named}
