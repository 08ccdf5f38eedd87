"""What CLIP weights were trained as, and whether the model named for them agrees.

Weights trained with QuickGELU run without complaint in a model with plain GELU and give other
numbers (open_clip only warns, and for files not even that), so a mismatch is refused here. Knows
nothing of images and of the networks themselves.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clare_cache.backbones.hub import first_line
from clare_cache.errors import BackboneError
from clare_cache.files import read_json

QUICK = "-quickgelu"
CONFIG_FILE = "open_clip_config.json"
"""What hub repositories keep beside open_clip's weights."""

OPENAI_VIT_L_14 = "b8cca3fd41ae0c99"
"""How the SHA-256 of OpenAI's own ViT-L-14.pt begins."""


def training_of_tag(name: str, tag: str) -> dict[str, Any]:
    """open_clip's record of a published training: hub place, activation, pixel statistics."""
    from open_clip import get_pretrained_cfg

    record = get_pretrained_cfg(name.removesuffix(QUICK), tag) or get_pretrained_cfg(name, tag)
    # open_clip notes the activation only where it is QuickGELU.
    return {**record, "quick_gelu": bool(record.get("quick_gelu"))} if record else {}


def training_of_file(name: str, path: Path, digest: str) -> dict[str, Any]:
    """What a file's digest, the configuration beside it, or its name says of its training.

    Raises BackboneError when nothing does and `name` alone leaves the activation open.
    """
    from open_clip import list_models, list_pretrained_tags_by_model

    if digest.startswith(OPENAI_VIT_L_14):
        return training_of_tag(name, "openai")
    if (beside := path.with_name(CONFIG_FILE)).is_file():
        return _training_of_config(beside)
    spelling = path.name.lower().replace("-", "_")
    tags = list_pretrained_tags_by_model(name.removesuffix(QUICK))
    if tag := max((tag for tag in tags if tag in spelling), key=len, default=""):
        return training_of_tag(name, tag)
    if f"{name}{QUICK}" in list_models():
        raise BackboneError(
            f"CLIP {name}:{path}: expected to know whether these weights were trained with "
            f"QuickGELU, found no {CONFIG_FILE} beside the file and no training in its name. "
            f"Put that file beside it, name the file after its training (such as openai), or "
            f"use {name}{QUICK}:{path} if it was QuickGELU."
        )
    return {}


def refuse_other_activation(
    config: Mapping[str, Any], trained: Mapping[str, Any], *, name: str, weights: str
) -> None:
    """Raise BackboneError when the model's activation is not that of the training, if known."""
    stated = trained.get("quick_gelu")
    if stated is None or stated == bool(config.get("quick_gelu")):
        return
    base = name.removesuffix(QUICK)
    if trained.get("quick_gelu"):
        expected, found, right = "QuickGELU", "plain GELU", f"{base}{QUICK}"
    else:
        expected, found, right = "plain GELU", "QuickGELU", base
    raise BackboneError(
        f"CLIP {name}:{weights}: expected a model with {expected}, which these weights were "
        f"trained with, found one with {found}. Use {right}:{weights}."
    )


def _training_of_config(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
        pixels = value.get("preprocess_cfg", {})
        return {
            # Absent, it says nothing: a user who writes out `-quickgelu` is believed.
            "quick_gelu": value["model_cfg"].get("quick_gelu"),
            "mean": pixels.get("mean"),
            "std": pixels.get("std"),
        }
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BackboneError(
            f"CLIP weights' {path}: expected open_clip's configuration with model_cfg, found "
            f"{type(error).__name__}: {first_line(error)}. Download it again with the weights."
        ) from error
