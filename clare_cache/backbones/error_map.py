"""The error map: how far Stable Diffusion's prediction is from the truth, at chosen timesteps.

Source: LaRE² (Luo et al., CVPR 2024) as its released extraction script computes it: the squared
difference between predicted and true target, not rescaled to latents. Both random draws are
functions of the image id here, the script leaves them unseeded. Knows no file and no store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.backbones.config import ErrorMapConfig
from clare_cache.backbones.features import VAE_LATENT, ErrorMapName, read_error_map_name
from clare_cache.backbones.numerics import (
    compile_in_place,
    float32_products,
    full_memory,
    largest_batch,
    padded,
    pick_device,
    place,
    torch_dtype,
)
from clare_cache.backbones.protocol import PictureBatch
from clare_cache.backbones.stable_diffusion import StableDiffusion
from clare_cache.backbones.stopwatch import Stopwatch
from clare_cache.backbones.upload import Upload, on_device
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.images import Preparation, decoder_declared
from clare_cache.seeds import standard_normal
from clare_cache.types import ArraySpec, ImageId, Pixels

GEOMETRY = "squash"
NOISE_RULE = "philox-by-image-id/1"
LATENT_AXES = ("latent_channel", "latent_row", "latent_column")
UNET_ROWS = {"cpu": 64, "cuda": 256}
"""Noised latents per UNet call. A GPU's host starts two thousand kernels a call, in about as long
as the GPU takes for 64 rows; with more it keeps ahead. 256 fit into 16 GB at 256 px."""


@dataclass(frozen=True)
class _ErrorMap:
    """One error map to make: its name, and what the name and the settings come to."""

    name: str
    is_signed: bool
    timestep: int
    ensemble: int

    @classmethod
    def of(cls, said: ErrorMapName, config: ErrorMapConfig) -> "_ErrorMap":
        timestep = config.timestep if said.timestep is None else said.timestep
        ensemble = config.ensemble if said.ensemble is None else said.ensemble
        return cls(said.name, said.is_signed, timestep, ensemble)


class ErrorMapBackbone:
    """Pictures → the asked-for error maps and `vae_latent`, each (latent_channel, latent_row,
    latent_column), from one VAE pass.

    `features` are the arrays to make. `error_map` (squared, 0 or more) and `error_map_signed`
    (predicted − true) are means over draws, float32, at the timestep and ensemble of their names
    or else of `config`. They share noise: draw k of an image is the same at every timestep and in
    every ensemble, so a UNet call serves all that need it. `vae_latent` is the scaled latent
    sample that noise is added to, float16. With `compiled` the networks are compiled for one shape
    each, which smaller batches are padded to. Raises BackboneError when the settings do not fit the
    model.
    """

    name = "error_map"

    def __init__(
        self,
        parts: StableDiffusion,
        config: ErrorMapConfig,
        *,
        features: Sequence[str] = ("error_map",),
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.config = config
        self.preprocess = Preparation(GEOMETRY, config.size_px)
        self._maps = {
            name.name: _ErrorMap.of(name, config)
            for name in map(read_error_map_name, features)
            if name is not None
        }
        raise_faults(
            BackboneError, f"error map with {parts.source}", _faults(parts, config, self._maps)
        )
        self.source = parts.source
        self.device = pick_device(device)
        self._stopwatch = Stopwatch(self.device)
        self.take_seconds = self._stopwatch.take
        self.upload = Upload(self.device)
        self.largest_batch = largest_batch(self.device)
        self._parts_vae = parts.vae
        self._unet = place(parts.unet, self.device)
        self._compiled, self._vae_rows, self._unet_rows = compiled, 0, 0
        if compiled:
            compile_in_place(self._unet)
        self._prompt = parts.prompt_embedding.to(self.device, self._unet.dtype)
        self._alphas_cumprod = parts.alphas_cumprod
        self._predicts_noise = parts.prediction_type == "epsilon"
        self._identity = parts.identity
        self.scaling_factor = parts.vae.config.scaling_factor
        side = config.size_px // _vae_factor(parts)
        self._latent_shape = (parts.vae.config.latent_channels, side, side)
        self.arrays: tuple[ArraySpec, ...] = tuple(map(self._spec, dict.fromkeys(features)))

    def _spec(self, array: str) -> ArraySpec:
        dtype, meaning = "float16", "scaled latent sample of the VAE, to which noise is added"
        if array in self._maps:
            kind = "difference" if self._maps[array].is_signed else "squared difference"
            dtype = "float32"
            meaning = f"{kind} of predicted and true target, mean over noise draws"
        return ArraySpec(array, self._latent_shape, LATENT_AXES, dtype, meaning)

    def declared(self, array: str) -> Mapping[str, Any]:
        """Everything that decides the values of `array`, and nothing that does not."""
        made = [spec.name for spec in self.arrays]
        if array not in made:
            raise BackboneError(
                f"array {array}: expected {', '.join(made)}, found a name it cannot make."
            )
        return self._declared_latent() if array == VAE_LATENT else self._declared_map(array)

    def _declared_map(self, array: str) -> dict[str, Any]:
        config, name = self.config, self._maps[array]
        implied = ErrorMapConfig(dtype=config.dtype).vae_arithmetic
        return {
            "quantity": f"{'signed' if name.is_signed else 'squared'} target error, "
            "mean over draws",
            "decode": decoder_declared(),
            "geometry": GEOMETRY,
            "size_px": config.size_px,
            "timestep": name.timestep,
            "ensemble": name.ensemble,
            "seed": config.seed,
            "noise": NOISE_RULE,
            "dtype": config.dtype,
            "vae_dtype": None if config.vae_arithmetic == implied else config.vae_arithmetic,
            "latent_dtype": None if config.latent_dtype == "float32" else config.latent_dtype,
            **self._identity,
        }

    def _declared_latent(self) -> dict[str, Any]:
        weights = self._identity["weights"]
        return {
            "quantity": "scaled latent sample",
            "decode": decoder_declared(),
            "geometry": GEOMETRY,
            "size_px": self.config.size_px,
            "seed": self.config.seed,
            "noise": NOISE_RULE,
            "vae_dtype": self.config.vae_arithmetic,
            "scaling_factor": self._identity["scaling_factor"],
            # Files have a digest each; a random initialisation has one for all of its networks.
            "weights": {"vae": weights["vae"]} if "vae" in weights else weights,
        }

    @cached_property
    def _vae(self) -> Any:
        # Not before it is asked for: maps that are made from latents need no VAE.
        vae: Any = place(self._parts_vae, self.device)
        if self._compiled:
            compile_in_place(vae.encoder)
        return vae

    def __call__(
        self, batch: PictureBatch, image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """(B, size_px, size_px, 3) → the wanted arrays, each (B, 4, rows, columns)."""
        asked = [spec.name for spec in self.arrays if spec.name in wanted]
        if not asked:
            return {}
        with full_memory():
            mean, std = self.posterior(batch)
            # All that is drawn is drawn here, while a GPU is still busy with the VAE.
            drawn, noise = (
                self._draw(image_ids, ["latent_sample"])[:, 0],
                self.draw_noise(image_ids),
            )
            drawn = drawn.to(self.device, non_blocking=True)
            latents = (mean + std * drawn) * self.scaling_factor
            return self.arrays_from(latents, noise, asked)

    def draw_noise(self, image_ids: Sequence[ImageId]) -> Tensor:
        """(B, draws, channels, rows, columns): the noise of the largest ensemble, on the CPU."""
        n_draws = max((one.ensemble for one in self._maps.values()), default=0)
        return self._draw(image_ids, [f"noise/{k}" for k in range(n_draws)])

    def arrays_from(
        self, latents: Tensor, noise: Tensor, asked: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """Scaled latent samples (B, channels, rows, columns) and their noise → the arrays asked
        for."""
        made: dict[str, Tensor] = {}
        if VAE_LATENT in asked:
            made[VAE_LATENT] = latents.half()
        # Rounded to what is stored or not, noise is added in float32.
        latents = latents.to(torch_dtype(self.config.latent_dtype)).float()
        maps = [self._maps[array] for array in asked if array in self._maps]
        for timestep in dict.fromkeys(one.timestep for one in maps):
            # As many draws as any of its maps needs, asked for or not: a UNet call of another size
            # rounds differently, and a resumed run is to give the same bytes.
            n_draws = max(m.ensemble for m in self._maps.values() if m.timestep == timestep)
            drawn = noise[:, :n_draws].to(self.device, non_blocking=True)
            errors = self.errors(latents, drawn, timestep)
            for one in maps:
                if one.timestep == timestep:
                    draws = errors[:, : one.ensemble]
                    made[one.name] = (draws if one.is_signed else draws.square()).mean(dim=1)
        return {array: made[array].cpu().numpy() for array in asked}

    @torch.inference_mode()
    def posterior(self, batch: PictureBatch) -> tuple[Tensor, Tensor]:
        """(B, h, w, 3) pictures → mean and standard deviation of the VAE's latents, each
        (B, channels, rows, columns) float32, before the scaling factor."""
        pixels = on_device(batch, self.device)
        # Contiguous, for a permuted view makes PyTorch's CPU kernels lose a digit in group norms.
        scaled = (pixels.permute(0, 3, 1, 2).float().contiguous() / 255 - 0.5) * 2
        if self._compiled:
            self._vae_rows = max(self._vae_rows, len(scaled))
            scaled = padded(scaled, self._vae_rows)
        arithmetic = float32_products(self.device, self.config.vae_arithmetic)
        with self._stopwatch.measure("vae"), arithmetic:
            latents = self._vae.encode(scaled).latent_dist
        return latents.mean[: len(batch)], latents.std[: len(batch)]

    @torch.inference_mode()
    def errors(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Predicted − true target of every draw, (B, draws, channels, rows, columns) float32.

        `latents` (B, channels, rows, columns) are scaled, `noise` has one more axis, draws, after
        the first. Noising, target and difference are float32 whatever the UNet's precision.
        """
        n_images, n_draws = noise.shape[:2]
        signal = float(np.sqrt(self._alphas_cumprod[timestep]))
        spread = float(np.sqrt(1.0 - self._alphas_cumprod[timestep]))
        z0 = latents.repeat_interleave(n_draws, dim=0)
        noise = noise.flatten(0, 1)
        noised = signal * z0 + spread * noise
        target = noise if self._predicts_noise else signal * noise - spread * z0
        most = UNET_ROWS.get(self.device.type, UNET_ROWS["cpu"])
        self._unet_rows = max(self._unet_rows, min(len(noised), most))
        # Not torch.tensor, which would wait for all that a GPU has still to do.
        step = torch.full((), timestep, dtype=torch.int64, device=self.device)
        with (
            self._stopwatch.measure("unet"),
            float32_products(self.device, self.config.dtype),
        ):
            parts = [self._predict(rows, step) for rows in noised.split(most)]
        predicted = torch.cat(parts)
        return (predicted - target).unflatten(0, (n_images, n_draws))

    def _predict(self, noised: Tensor, step: Tensor) -> Tensor:
        rows = noised.to(self._prompt.dtype)
        if self._compiled:
            rows = padded(rows, self._unet_rows)
        prompt = self._prompt.expand(len(rows), -1, -1)
        found = self._unet(rows, step, encoder_hidden_states=prompt, return_dict=False)[0]
        return found[: len(noised)].float()

    def _draw(self, image_ids: Sequence[ImageId], roles: Sequence[str]) -> Tensor:
        """(B, roles, channels, rows, columns) standard normal draws, made on the CPU."""
        shape = self._latent_shape
        draws = [
            [standard_normal(self.config.seed, image_id, role, shape) for role in roles]
            for image_id in image_ids
        ]
        return torch.from_numpy(
            np.array(draws, np.float32).reshape(len(image_ids), len(roles), *shape)
        )


class ErrorMapFromLatent:
    """Rows of `vae_latent` → the asked-for error maps: what `ErrorMapBackbone` makes of pictures
    with `latent_dtype` float16, without pictures and VAE.

    `vae_latent` is among its arrays, so that what it reads can be held to its declared inputs.
    """

    name = "error_map"

    def __init__(
        self,
        parts: StableDiffusion,
        config: ErrorMapConfig,
        *,
        features: Sequence[str],
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self._backbone = ErrorMapBackbone(
            parts, config, features=[*features, VAE_LATENT], device=device, compiled=compiled
        )
        self.source = self._backbone.source
        self.arrays = self._backbone.arrays
        self.declared = self._backbone.declared
        self.take_seconds = self._backbone.take_seconds
        self.upload = self._backbone.upload
        # Larger ones are not tried: the UNet takes its rows in parts of UNET_ROWS anyway.
        self.largest_batch = 0

    def preprocess(self, pixels: Pixels) -> Pixels:
        """Latents need no preparation."""
        return pixels

    def __call__(
        self, batch: PictureBatch, image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """(B, 4, rows, columns) rows of `vae_latent` → the wanted arrays, each of that shape."""
        asked = [spec.name for spec in self.arrays if spec.name in wanted]
        if not asked:
            return {}
        with full_memory():
            latents = on_device(batch, self._backbone.device)
            noise = self._backbone.draw_noise(image_ids)
            return self._backbone.arrays_from(latents.float(), noise, asked)


def _vae_factor(parts: StableDiffusion) -> int:
    return 2 ** (len(parts.vae.config.block_out_channels) - 1)


def _faults(
    parts: StableDiffusion, config: ErrorMapConfig, maps: Mapping[str, _ErrorMap]
) -> list[str]:
    faults = []
    if parts.prediction_type not in ("epsilon", "v_prediction"):
        faults.append(
            f"prediction_type: expected epsilon or v_prediction, found {parts.prediction_type}"
        )
    n_steps = len(parts.alphas_cumprod)
    faults += [
        f"timestep: expected 0 to {n_steps - 1}, found {timestep}"
        for timestep in dict.fromkeys(name.timestep for name in maps.values())
        if timestep >= n_steps
    ]
    if config.size_px % _vae_factor(parts):
        faults.append(
            f"size_px: expected a multiple of {_vae_factor(parts)}, found {config.size_px}"
        )
    return faults
