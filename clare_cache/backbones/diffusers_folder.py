"""A diffusers folder of a latent diffusion model, read part by part and checked.

Knows the files and what is commonly wrong with them. Everything is local here: nothing is
downloaded, no pickle is opened, and weights that the files lack are never made up.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clare_cache.backbones.architectures import build_networks
from clare_cache.backbones.hub import first_line
from clare_cache.backbones.numerics import on_meta, seeded_init, torch_dtype
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.files import read_json
from clare_cache.fingerprint import file_digest

WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
FOLDER_FILES = (
    *(f"{part}/config.json" for part in WEIGHT_STEMS),
    *(f"{part}/{stem}.safetensors" for part, stem in WEIGHT_STEMS.items()),
    "tokenizer/*",
    "scheduler/scheduler_config.json",
)
"""What is needed of a repository, as download patterns."""

_CURE = "Name a complete diffusers folder, with safetensors weights."


@dataclass(frozen=True)
class Parts:
    """A latent diffusion model, whole. `prompt_ids` is (1, tokens), `scheduler` its file,
    `weights` what identifies the numbers in the networks."""

    unet: Any
    vae: Any
    text_encoder: Any
    prompt_ids: Tensor
    scheduler: Mapping[str, Any]
    weights: Mapping[str, Any]


def read_folder(folder: Path, *, prompt: str, dtype: str, asked: str, empty: bool = False) -> Parts:
    """The parts kept in `folder`: UNet in `dtype`, the others in float32.

    `empty` networks are on the meta device, of the folder's configurations. Raises BackboneError,
    beginning with `asked`, with all faults of the folder or of the fit.
    """
    from safetensors import SafetensorError
    from transformers import CLIPTokenizer

    raise_faults(BackboneError, asked, list(folder_faults(folder)), advice=_CURE)
    try:
        # Every model is first initialised: that must not draw from the caller's generator.
        with _no_progress_bars(), seeded_init():
            tokenizer = CLIPTokenizer.from_pretrained(
                folder, subfolder="tokenizer", local_files_only=True
            )
            networks, gaps = _build(folder) if empty else _load(folder, dtype=dtype)
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise BackboneError(f"{asked}: cannot be loaded, {first_line(error)}. {_CURE}") from error
    unet, vae, text_encoder = networks
    faults = [*gaps]
    faults += fit_faults(unet.config, vae.config, text_encoder.config, tokenizer.pad_token_id)
    raise_faults(BackboneError, asked, faults)
    prompt_ids = tokenizer(
        [prompt],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return Parts(
        unet=nn.Module.to(unet, torch_dtype(dtype)) if empty else unet,
        vae=vae,
        text_encoder=text_encoder.eval(),
        prompt_ids=prompt_ids,
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        weights={part: file_digest(weight_file(folder, part)) for part in WEIGHT_STEMS},
    )


Networks = tuple[Any, Any, Any]
"""UNet, VAE and text encoder."""


def _build(folder: Path) -> tuple[Networks, list[str]]:
    configs = {part: read_json(folder / part / "config.json") for part in WEIGHT_STEMS}
    with on_meta(True):
        return build_networks(configs), []


def _load(folder: Path, *, dtype: str) -> tuple[Networks, list[str]]:
    """The networks, and a phrase for each of their weights that the files do not hold."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    # Without an explicit dtype transformers takes the file's, which is often half.
    text_encoder, text_gaps = _read(
        CLIPTextModel.from_pretrained, folder, "text_encoder", dtype=torch.float32
    )
    vae, vae_gaps = _read(
        AutoencoderKL.from_pretrained,
        folder,
        "vae",
        torch_dtype=torch.float32,
        low_cpu_mem_usage=False,
    )
    unet, unet_gaps = _read(
        UNet2DConditionModel.from_pretrained,
        folder,
        "unet",
        torch_dtype=torch_dtype(dtype),
        low_cpu_mem_usage=False,
    )
    return (unet, vae, text_encoder), [*unet_gaps, *vae_gaps, *text_gaps]


def pad_token_id(folder: Path) -> int:
    """The id that the folder's tokenizer pads prompts with."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    return int(tokenizer.pad_token_id)


def _read(
    from_pretrained: Callable[..., Any], folder: Path, part: str, **options: Any
) -> tuple[Any, list[str]]:
    """A network, and a phrase for each of its weights that the file does not hold."""
    half = weight_file(folder, part).name.endswith(".fp16.safetensors")
    model, info = from_pretrained(
        folder,
        subfolder=part,
        variant="fp16" if half else None,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    return model, [f"{part} has no weights for {name}" for name in sorted(info["missing_keys"])]


def weight_file(folder: Path, part: str) -> Path:
    plain = folder / part / f"{WEIGHT_STEMS[part]}.safetensors"
    half = plain.with_suffix(".fp16.safetensors")
    return half if half.is_file() and not plain.is_file() else plain


def folder_faults(folder: Path) -> Iterator[str]:
    for part, stem in WEIGHT_STEMS.items():
        if not (folder / part / "config.json").is_file():
            yield f"{part}/config.json is missing"
        if not weight_file(folder, part).is_file():
            pickled = "pytorch_model.bin" if part == "text_encoder" else f"{stem}.bin"
            is_pickled = (folder / part / pickled).is_file()
            found = f", and {pickled} is a pickle, which is not read" if is_pickled else ""
            yield f"{part}/{stem}.safetensors is missing{found}"
    for name in ("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"):
        if not (folder / name).is_file():
            yield f"{name} is missing"


def fit_faults(unet: Any, vae: Any, text: Any, pad_id: int) -> Iterator[str]:
    """A phrase for each way in which the parts' configurations do not belong together."""
    if unet.in_channels != vae.latent_channels:
        yield (
            f"the UNet reads {unet.in_channels} channels, the VAE makes {vae.latent_channels}: "
            "this is not a plain text-to-image model"
        )
    if unet.cross_attention_dim != text.hidden_size:
        yield (
            f"the UNet attends to width {unet.cross_attention_dim}, the text encoder makes "
            f"width {text.hidden_size}"
        )
    # Where a configuration leaves it out, transformers takes CLIP's own, QuickGELU.
    expected = {1024: "gelu", 768: "quick_gelu"}.get(text.hidden_size, text.hidden_act)
    if text.vocab_size == 49408 and text.hidden_act != expected:
        yield (
            f"the text encoder is configured with {text.hidden_act}, one of width "
            f"{text.hidden_size} was trained with {expected}: copy text_encoder/config.json from "
            "the original model"
        )
    # Stable Diffusion 2 pads with "!", which only special_tokens_map.json says. Without that file
    # the tokenizer pads with the end token and every map changes, silently.
    if text.hidden_size == 1024 and text.vocab_size == 49408 and pad_id != 0:
        yield (
            f"the tokenizer pads with id {pad_id}, Stable Diffusion 2 was trained with 0: "
            "copy tokenizer/special_tokens_map.json from the original model"
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
