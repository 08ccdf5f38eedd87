"""What a user may choose about the frozen networks: plain records, checked when made.

Knows no network and imports no torch, so that recipes and `--help` can read it cheaply.
"""

from dataclasses import dataclass
from typing import Any

from clare_cache.errors import BackboneError, raise_faults

DTYPES = ("float32", "tf32", "float16", "bfloat16")
VAE_DTYPES = ("auto", "float32", "tf32")
STORED_DTYPES = ("float16", "float32")
GEOMETRY_NAMES = (
    "center-crop", "resize-crop", "squash", "center-crop-reflected", "opencv-squash",
)  # fmt: skip
NORMALISATIONS = ("model", "half", "imagenet")
PREPROCESSING: dict[str, dict[str, Any]] = {
    "rine": {"geometry": "center-crop", "normalise": "model", "png_through_jpeg": False},
    "ufd": {"geometry": "center-crop", "normalise": "model", "png_through_jpeg": False},
    "clip": {"geometry": "resize-crop", "normalise": "model", "png_through_jpeg": False},
    "lare2": {
        "geometry": "center-crop-reflected", "normalise": "imagenet", "png_through_jpeg": False,
    },
    "clare": {"geometry": "opencv-squash", "normalise": "half", "png_through_jpeg": True},
}  # fmt: skip
"""How each published system shows a picture to CLIP in a test, as settings of `ClipConfig`."""
TAPS = ("mlp_input", "block_output")


@dataclass(frozen=True)
class ErrorMapConfig:
    """How error maps are made; the defaults are the published set with 4×32×32 maps.

    `size_px` is the side of the picture that the VAE sees, `timestep` indexes the noise schedule
    from 0, `ensemble` is the number of noise draws that are averaged; an array's name may say
    another timestep and number (`error_map-t280-n8`). `dtype` is the UNet's: tf32 is float32 whose
    products a GPU rounds to ten bits. Noise and loss are float32 always, and so is the VAE, in
    `vae_dtype` arithmetic: auto is float32 beside a float32 UNet and tf32 beside any other.
    `latent_dtype` float16 rounds the latent as `vae_latent` stores it before noise is added.
    Source: LaRE² (CVPR 2024), its released extraction script.
    """

    size_px: int = 256
    timestep: int = 200
    ensemble: int = 4
    prompt: str = "a photo"
    seed: int = 0
    dtype: str = "float32"
    vae_dtype: str = "auto"
    latent_dtype: str = "float32"

    def __post_init__(self) -> None:
        faults = []
        if self.size_px < 1:
            faults.append(f"size_px: expected a positive number of pixels, found {self.size_px}")
        if self.timestep < 0:
            faults.append(f"timestep: expected 0 or more, found {self.timestep}")
        if self.ensemble < 1:
            faults.append(f"ensemble: expected 1 draw or more, found {self.ensemble}")
        faults += _choice("dtype", self.dtype, DTYPES)
        faults += _choice("vae_dtype", self.vae_dtype, VAE_DTYPES)
        faults += _choice("latent_dtype", self.latent_dtype, STORED_DTYPES)
        raise_faults(BackboneError, "error map settings", faults)

    @property
    def vae_arithmetic(self) -> str:
        """float32 or tf32: what `vae_dtype` comes to."""
        if self.vae_dtype != "auto":
            return self.vae_dtype
        return "float32" if self.dtype == "float32" else "tf32"


@dataclass(frozen=True)
class ClipConfig:
    """How CLIP features are made.

    `geometry` names the rule that makes a decoded picture square. `tap` says which class token
    `clip_block_cls` holds: `mlp_input` is what RINE's released code reads (the second layer norm's
    output), `block_output` is what its paper defines. `normalise` names mean and standard
    deviation: those the weights were trained with, 0.5 and 0.5, or ImageNet's. `png_through_jpeg`
    compresses pictures from PNG files first, as CLaRE's loader does. `dtype` is the network's,
    `stored_dtype` the arrays'.
    """

    geometry: str = "center-crop"
    normalise: str = "model"
    png_through_jpeg: bool = False
    tap: str = "mlp_input"
    dtype: str = "float32"
    stored_dtype: str = "float16"

    def __post_init__(self) -> None:
        faults = [
            *_choice("geometry", self.geometry, GEOMETRY_NAMES),
            *_choice("normalise", self.normalise, NORMALISATIONS),
            *_choice("tap", self.tap, TAPS),
            *_choice("dtype", self.dtype, DTYPES),
            *_choice("stored_dtype", self.stored_dtype, STORED_DTYPES),
        ]
        raise_faults(BackboneError, "CLIP settings", faults)


def preprocessing_settings(name: str) -> dict[str, Any]:
    """The settings of `ClipConfig` behind a published system's preprocessing. Raises BackboneError
    for other names."""
    faults = _choice("preprocessing", name, tuple(PREPROCESSING))
    raise_faults(BackboneError, "CLIP settings", faults)
    return PREPROCESSING[name]


def _choice(field: str, value: str, choices: tuple[str, ...]) -> list[str]:
    if value in choices:
        return []
    return [f"{field}: expected one of {', '.join(choices)}, found {value}"]
