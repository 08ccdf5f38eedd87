"""The error map: how far Stable Diffusion's prediction is from the truth, at one timestep.

Source: LaRE² (Luo et al., CVPR 2024) as its released extraction script computes it: the squared
difference between predicted and true target, not rescaled to latents. Both random draws are
functions of the image id here, the script leaves them unseeded. Knows no file and no store.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.backbones.config import ErrorMapConfig
from clare_cache.backbones.numerics import exact_float32, pick_device
from clare_cache.backbones.stable_diffusion import StableDiffusion
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.images import GEOMETRIES, decoder_declared
from clare_cache.seeds import standard_normal
from clare_cache.types import ArraySpec, ImageId, Pixels

GEOMETRY = "squash"
NOISE_RULE = "philox-by-image-id/1"
UNET_ROWS = 64
"""Noised latents per UNet call: enough to fill a GPU, little enough for 16 GB at 256 px."""


class ErrorMapBackbone:
    """Pictures → `error_map` (latent_channel, latent_row, latent_column), float32, 0 or more.

    Raises BackboneError when the settings do not fit the model.
    """

    name = "error_map"

    def __init__(
        self, parts: StableDiffusion, config: ErrorMapConfig, *, device: str = "cpu"
    ) -> None:
        raise_faults(BackboneError, f"error map with {parts.source}", _faults(parts, config))
        self.config = config
        self.source = parts.source
        self.device = pick_device(device)
        self._vae = parts.vae.to(self.device)
        self._unet = parts.unet.to(self.device)
        self._prompt = parts.prompt_embedding.to(self.device, self._unet.dtype)
        self._timestep = torch.tensor(config.timestep, dtype=torch.int64, device=self.device)
        self._signal = float(np.sqrt(parts.alphas_cumprod[config.timestep]))
        self._noise = float(np.sqrt(1.0 - parts.alphas_cumprod[config.timestep]))
        self._predicts_noise = parts.prediction_type == "epsilon"
        self._identity = parts.identity
        side = config.size_px // _vae_factor(parts)
        self._latent_shape = (self._vae.config.latent_channels, side, side)
        self.arrays: tuple[ArraySpec, ...] = (
            ArraySpec(
                "error_map",
                self._latent_shape,
                ("latent_channel", "latent_row", "latent_column"),
                "float32",
                "squared difference of predicted and true target, mean over noise draws",
            ),
        )

    def declared(self, array: str) -> Mapping[str, Any]:
        """Everything that decides the values of `error_map`."""
        if array != "error_map":
            raise BackboneError(f"array {array}: expected error_map, found a name it cannot make.")
        config = self.config
        return {
            "quantity": "squared target error, mean over draws",
            "decode": decoder_declared(),
            "geometry": GEOMETRY,
            "size_px": config.size_px,
            "timestep": config.timestep,
            "ensemble": config.ensemble,
            "seed": config.seed,
            "noise": NOISE_RULE,
            "dtype": config.dtype,
            **self._identity,
        }

    def preprocess(self, pixels: Pixels) -> Pixels:
        """(H, W, 3) → (size_px, size_px, 3), bicubic; the aspect ratio is not kept."""
        return GEOMETRIES[GEOMETRY](pixels, self.config.size_px)

    def __call__(
        self, batch: NDArray[np.uint8], image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """(B, size_px, size_px, 3) → `{"error_map": (B, 4, rows, columns)}` if it is wanted."""
        if "error_map" not in wanted:
            return {}
        mean, std = self.posterior(batch)
        latent_sample = mean + std * self._draw(image_ids, ["latent_sample"])[:, 0]
        noise = self._draw(image_ids, [f"noise/{k}" for k in range(self.config.ensemble)])
        return {"error_map": self.error_map_from(latent_sample, noise).cpu().numpy()}

    @torch.inference_mode()
    def posterior(self, batch: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """(B, h, w, 3) pictures → mean and standard deviation of the VAE's latents, each
        (B, channels, rows, columns) float32, before the scaling factor."""
        pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
        # Contiguous, for a permuted view makes PyTorch's CPU kernels lose a digit in group norms.
        scaled = (pixels.permute(0, 3, 1, 2).float().contiguous() / 255 - 0.5) * 2
        with exact_float32(self.device, self.config.dtype):
            latents = self._vae.encode(scaled).latent_dist
        return latents.mean, latents.std

    @torch.inference_mode()
    def error_map_from(self, latent_sample: Tensor, noise: Tensor) -> Tensor:
        """Error maps (B, channels, rows, columns) of given draws, float32.

        `latent_sample` (B, channels, rows, columns) is unscaled, `noise` has one more axis, draws,
        after the first. Noising, target and loss are float32 whatever the UNet's precision.
        """
        n_images, n_draws = noise.shape[:2]
        z0 = (latent_sample * self._vae.config.scaling_factor).repeat_interleave(n_draws, dim=0)
        noise = noise.flatten(0, 1)
        noised = self._signal * z0 + self._noise * noise
        target = noise if self._predicts_noise else self._signal * noise - self._noise * z0
        with exact_float32(self.device, self.config.dtype):
            predicted = torch.cat([self._predict(rows) for rows in noised.split(UNET_ROWS)])
        errors = (predicted - target).square()
        return errors.unflatten(0, (n_images, n_draws)).mean(dim=1)

    def _predict(self, noised: Tensor) -> Tensor:
        prompt = self._prompt.expand(len(noised), -1, -1)
        rows = noised.to(self._unet.dtype)
        return self._unet(rows, self._timestep, encoder_hidden_states=prompt).sample.float()

    def _draw(self, image_ids: Sequence[ImageId], roles: Sequence[str]) -> Tensor:
        """(B, roles, channels, rows, columns) standard normal draws, made on the CPU."""
        shape = self._latent_shape
        draws = [
            [standard_normal(self.config.seed, image_id, role, shape) for role in roles]
            for image_id in image_ids
        ]
        return torch.from_numpy(np.array(draws)).to(self.device)


def _vae_factor(parts: StableDiffusion) -> int:
    return 2 ** (len(parts.vae.config.block_out_channels) - 1)


def _faults(parts: StableDiffusion, config: ErrorMapConfig) -> list[str]:
    faults = []
    if parts.prediction_type not in ("epsilon", "v_prediction"):
        faults.append(
            f"prediction_type: expected epsilon or v_prediction, found {parts.prediction_type}"
        )
    n_steps = len(parts.alphas_cumprod)
    if config.timestep >= n_steps:
        faults.append(f"timestep: expected 0 to {n_steps - 1}, found {config.timestep}")
    if config.size_px % _vae_factor(parts):
        faults.append(
            f"size_px: expected a multiple of {_vae_factor(parts)}, found {config.size_px}"
        )
    return faults
