"""A Stable Diffusion checkpoint in one safetensors file, in the layout of the authors' own code.

Such a file holds every tensor and no configuration. Which model it is follows from the shapes; what
its UNet predicts does not: 2.1 and 2.1-base have equal shapes and predict different things, and the
wrong one gives wrong maps without a complaint. So the file must be known by its digest, or the user
must say it. Opens no pickle, downloads nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clare_cache.backbones.architectures import architecture, build_networks
from clare_cache.backbones.diffusers_folder import Parts
from clare_cache.backbones.hub import first_line
from clare_cache.backbones.numerics import on_meta, seeded_init, torch_dtype
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.fingerprint import file_digest

PREDICTION_TYPES = ("epsilon", "v_prediction")
KNOWN_FILES = {
    "dcd690123cfc64383981a31d955694f6acf2072a80537fdb612c8e58ec87a8ac": "v_prediction",
    "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa": "epsilon",
}
"""SHA-256 → what it predicts: v2-1_768-ema-pruned and v1-5-pruned-emaonly, both .safetensors."""

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
OPEN_CLIP_TEXT = f"{TEXT}model."
PROMPT_KEY = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
ARCHITECTURES = {768: "sd15", 1024: "sd21"}
"""Width of the prompt that the UNet attends to → configurations: Stable Diffusion 1 and 2."""

END_TOKEN = 49_407
SPELLING = re.compile(r"(.+\.(?:safetensors|ckpt|pt|pth))(?::(\w*))?", re.IGNORECASE)
MOST_FAULTS = 8


@dataclass(frozen=True)
class SingleFile:
    """What `--sd FILE.safetensors:PREDICTION` names; the second half may be left open."""

    path: Path
    prediction_type: str | None


def parse_single_file(spec: str) -> SingleFile | None:
    """The file that a spelling names, or None if it names none. Raises BackboneError for an
    unknown prediction type."""
    match = SPELLING.fullmatch(spec)
    if not match:
        return None
    path, stated = match.groups()
    if stated is not None and stated not in PREDICTION_TYPES:
        raise BackboneError(
            f"Stable Diffusion {spec}: expected epsilon or v_prediction after the colon, found "
            f"{stated or 'nothing'}. Say what the model predicts."
        )
    return SingleFile(Path(path).expanduser(), stated)


def read_single_file(
    file: SingleFile,
    *,
    prompt: str,
    dtype: str,
    asked: str,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    empty: bool = False,
) -> Parts:
    """The parts of a checkpoint: UNet in `dtype`, the others in float32.

    `configs` are the networks', by default those that the file's shapes tell. `empty` networks are
    on the meta device. Raises BackboneError, beginning with `asked`, with all faults of the file.
    """
    from open_clip import tokenize
    from safetensors.torch import load_file

    configs = configs or _configs_of(file.path, asked=asked)
    digest = file_digest(file.path)
    prediction_type = prediction_type_of(file, digest, asked=asked)
    with seeded_init(), on_meta(empty):
        networks = build_networks(configs)
    if not empty:
        _fill(networks, load_file(file.path), configs, asked=asked)
    unet, vae, text_encoder = networks
    prompt_ids = tokenize([prompt])
    if configs["text_encoder"]["hidden_act"] == "quick_gelu":
        # Stable Diffusion 1 pads with the end token, 2 with id 0, as open_clip does.
        ended = torch.arange(prompt_ids.shape[1]) > prompt_ids.argmax()
        prompt_ids[:, ended] = END_TOKEN
    return Parts(
        # Not unet.to: diffusers' own logs a warning that says nothing here.
        unet=nn.Module.to(unet, torch_dtype(dtype)),
        vae=vae,
        text_encoder=text_encoder.eval(),
        prompt_ids=prompt_ids,
        scheduler={**configs["scheduler"], "prediction_type": prediction_type},
        weights={"checkpoint": digest},
    )


def _fill(
    networks: Sequence[Any],
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    asked: str,
) -> None:
    faults: list[str] = []
    for network, (part, found) in zip(networks, _by_part(tensors, configs).items(), strict=True):
        faults += weight_faults(part, network.state_dict(), found)
        if not faults:
            network.load_state_dict({key: found[key] for key in network.state_dict()})
    raise_faults(BackboneError, asked, shortened(faults))


def single_file_faults(path: Path, *, asked: str) -> list[str]:
    """What is wrong with a checkpoint's names and shapes, from its header alone.

    Raises BackboneError, beginning with `asked`, when it is no Stable Diffusion 1 or 2.
    """
    configs = _configs_of(path, asked=asked)
    header = {
        key: torch.empty(shape, device="meta") for key, shape in read_shapes(path, asked).items()
    }
    with torch.device("meta"):
        networks = build_networks(configs)
    return [
        fault
        for network, (part, found) in zip(networks, _by_part(header, configs).items(), strict=True)
        for fault in weight_faults(part, network.state_dict(), found)
    ]


def weight_faults(
    part: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> Iterator[str]:
    """A phrase for each weight that a network lacks or that has another shape."""
    for key, value in expected.items():
        if key not in found:
            yield f"{part} has no weights for {key}"
        elif found[key].shape != value.shape:
            yield (
                f"{part} {key}: expected shape {tuple(value.shape)}, "
                f"found {tuple(found[key].shape)}"
            )


def shortened(faults: list[str]) -> list[str]:
    """The first few; a file of another model has hundreds."""
    if len(faults) <= MOST_FAULTS:
        return faults
    return [*faults[:MOST_FAULTS], f"and {len(faults) - MOST_FAULTS} more"]


def read_shapes(path: Path, asked: str) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape, from a safetensors file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BackboneError(
            f"{asked}: expected a whole safetensors file, found {first_line(error)}. "
            "Copy it again, and compare its SHA-256."
        ) from error


def _configs_of(path: Path, *, asked: str) -> dict[str, dict[str, Any]]:
    if path.suffix.lower() != ".safetensors":
        raise BackboneError(
            f"{asked}: expected a .safetensors file, found {path.suffix}, a pickle, which can run "
            "code when it is opened. Use the .safetensors file that is published beside it."
        )
    if not path.is_file():
        raise BackboneError(f"{asked}: expected a checkpoint file, found none. Check the path.")
    shapes = read_shapes(path, asked)
    raise_faults(
        BackboneError,
        asked,
        list(_layout_faults(shapes)),
        advice="Supported are Stable Diffusion 1 and 2 in the authors' layout, whole and with one "
        "set of weights, such as v2-1_768-ema-pruned.safetensors.",
    )
    return architecture(ARCHITECTURES[shapes[PROMPT_KEY][-1]])


def _layout_faults(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for prefix, part in {UNET: "UNet", VAE: "VAE", TEXT: "text encoder"}.items():
        if not any(key.startswith(prefix) for key in shapes):
            yield f"no {part}: no tensor's name begins with {prefix}"
    if any(key.startswith("model_ema.") for key in shapes):
        yield "two sets of UNet weights, the second under model_ema: take the ema-pruned file"
    width = shapes.get(PROMPT_KEY, (0,))[-1]
    if width not in ARCHITECTURES:
        yield f"a UNet that attends to a prompt of width {width}, which is neither 1's nor 2's"
    channels = shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 4))[1]
    if channels != 4:
        yield f"a UNet that reads {channels} channels: this is not a plain text-to-image model"


def prediction_type_of(file: SingleFile, digest: str, *, asked: str) -> str:
    """What the UNet predicts, as its digest or the user says. Raises BackboneError if neither
    does, or if they differ."""
    known = KNOWN_FILES.get(digest)
    if known and file.prediction_type not in (None, known):
        raise BackboneError(
            f"{asked}: expected {known}, which this file is known to predict, found "
            f"{file.prediction_type}. Use {file.path}:{known}."
        )
    found = known or file.prediction_type
    if found is None:
        raise BackboneError(
            f"{asked}: expected to know what the UNet predicts, which no tensor tells, found an "
            f"unknown file (SHA-256 {digest[:16]}…). Write {file.path}:v_prediction for 2.0 and "
            f"2.1 at 768 px, {file.path}:epsilon for the base models at 512 px and for 1.x."
        )
    return found


def _by_part(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Tensor]]:
    """The tensors under the names that diffusers and transformers give them, by part."""
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
        convert_open_clip_checkpoint,
    )
    from transformers import CLIPTextConfig

    if any(key.startswith(OPEN_CLIP_TEXT) for key in tensors):
        config = CLIPTextConfig(**configs["text_encoder"])
        text = convert_open_clip_checkpoint(_Configured(config), tensors, prefix=OPEN_CLIP_TEXT)
    else:
        text = convert_ldm_clip_checkpoint(tensors)
    return {
        "unet": convert_ldm_unet_checkpoint(tensors, configs["unet"]),
        "vae": convert_ldm_vae_checkpoint(tensors, configs["vae"]),
        "text_encoder": {key.removeprefix("text_model."): value for key, value in text.items()},
    }


@dataclass(frozen=True)
class _Configured:
    """All of a text encoder that the conversion looks at."""

    config: Any
