"""Which CLIP a name means, and whether the weights fit it.

What the weights were trained as is `clip_training`'s question. Knows nothing of images and arrays.
"""

import copy
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from clare_cache.backbones.clip import ClipBackbone
from clare_cache.backbones.clip_training import (
    QUICK,
    refuse_other_activation,
    training_of_file,
    training_of_tag,
)
from clare_cache.backbones.config import ClipConfig
from clare_cache.backbones.hub import cached_revision, fetch_file, first_line
from clare_cache.backbones.numerics import on_meta, random_identity, seeded_init, torch_dtype
from clare_cache.backbones.text import ClipTextTower
from clare_cache.backbones.tiny_init import sharpen_tiny_patches
from clare_cache.backbones.weights_record import pinned_source, split_revision
from clare_cache.errors import BackboneError, raise_faults
from clare_cache.fingerprint import file_digest

WEIGHT_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}
HUB_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
# Torn files, pickled objects, TorchScript archives, and files that hold no state dict.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    AttributeError,
    StopIteration,
)
_VISION_FIELDS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT_FIELDS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


@dataclass(frozen=True)
class LoadedClip:
    """A frozen open_clip model in float32, and what decides its values.

    `source` is the spelling that loads it again, from any folder. Both halves are alive as long as
    this record is: let it go after taking the half you need.
    """

    model: Any
    identity: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    text_config: Mapping[str, Any]
    source: str

    def image_backbone(self, config: ClipConfig, *, device: str = "cpu") -> ClipBackbone:
        """The image tower as a backbone, converted to the configured precision."""
        visual = self.model.visual
        if torch_dtype(config.dtype) != torch.float32:
            from open_clip import convert_weights_to_lp

            visual = copy.deepcopy(visual)
            convert_weights_to_lp(visual, torch_dtype(config.dtype))
        return ClipBackbone(
            visual,
            config,
            mean=self.mean,
            std=self.std,
            identity=self.identity,
            source=self.source,
            device=device,
        )

    def text_tower(self, *, device: str = "cpu") -> ClipTextTower:
        """The text tower; BackboneError if it is not CLIP's own causal transformer."""
        others = sorted(set(self.text_config) - _TEXT_FIELDS)
        if others:
            raise BackboneError(
                f"text tower of CLIP {self.source}: expected CLIP's own text transformer and "
                f"tokenizer, found {', '.join(others)}. Use a model such as ViT-L-14{QUICK}."
            )
        return ClipTextTower(self.model, self.identity, device=device)


def load_clip(spec: str, *, empty: bool = False) -> LoadedClip:
    """The CLIP that `spec` names: `MODEL:TAG` (open_clip's names, from the hub, with an optional
    `@revision`), `MODEL:FILE` (safetensors or a state dict), `random:MODEL` (seeded weights), or
    `tiny`. An `empty` model is on the meta device: it has the same identity and shapes.

    Raises BackboneError when the model is unknown, not a plain vision transformer or CLIP's own
    ResNet, or not what the weights were trained as (for a file: as its digest, the
    open_clip_config.json beside it or its name says).
    """
    if spec == "tiny":
        config = json.loads((files("clare_cache.backbones") / "tiny" / "clip.json").read_text())
        tiny = _initialise("tiny", config, source="tiny", empty=empty)
        if not empty:
            sharpen_tiny_patches(tiny.model.visual)
        return tiny
    name, _, weights = spec.partition(":")
    if not weights:
        raise BackboneError(
            f"CLIP {spec}: expected MODEL:TAG, MODEL:FILE, random:MODEL or tiny, found no colon. "
            f"Write for example ViT-L-14{QUICK}:openai."
        )
    if name == "random":
        return _initialise(weights, model_config(weights, spec), source=spec, empty=empty)
    config = model_config(name, spec)
    weights, revision = split_revision(weights)
    path = Path(weights).expanduser()
    if path.is_file():
        digest = file_digest(path)
        trained = training_of_file(name, path, digest)
        refuse_other_activation(config, trained, name=name, weights=weights)
        # Whoever loads it again may stand in another folder.
        source = f"{name}:{pinned_source(path, path.parent, revision, asked=f'CLIP {spec}')}"
    elif path.suffix in WEIGHT_SUFFIXES or "/" in weights:
        raise BackboneError(f"CLIP {spec}: expected a weights file, found none. Check the path.")
    else:
        trained = training_of_tag(name, weights)
        refuse_other_activation(config, trained, name=name, weights=weights)
        path = _fetch(trained, name=name, tag=weights, revision=revision, spec=spec)
        digest = file_digest(path)
        commit = cached_revision(path.parent) or revision
        source = f"{name}:{weights}@{commit}" if commit else f"{name}:{weights}"
    with on_meta(empty):
        model = build_clip(config)
    if not empty:
        _fill(model, path, spec=spec)
    return _loaded(
        model, name=name, config=config, trained=trained, weights={"sha256": digest}, source=source
    )


def build_clip(config: Mapping[str, Any]) -> Any:
    """A frozen open_clip model of the given configuration, with seeded weights, in float32."""
    from open_clip import CLIP

    with seeded_init():
        # The cast dtype selects layer norms that compute in float32 whatever they are given, so
        # that the same module serves both precisions. No weight is converted by it.
        model = CLIP(**copy.deepcopy(dict(config)), cast_dtype=torch.float16)
    model.eval().requires_grad_(False)
    activation = "QuickGELU" if config.get("quick_gelu", False) else "GELU"
    # A ResNet has ReLU whatever the flag says, which is then the text tower's alone.
    image_blocks = getattr(getattr(model.visual, "transformer", None), "resblocks", ())
    for block in (*image_blocks, *model.transformer.resblocks):
        found = type(block.mlp.gelu).__name__
        if found != activation:
            raise BackboneError(
                f"CLIP activation: expected {activation}, found {found} in the built model. "
                "Install a supported open_clip_torch, 3.3 or later and below 4."
            )
    return model


def _initialise(name: str, config: Mapping[str, Any], *, source: str, empty: bool) -> LoadedClip:
    with on_meta(empty):
        model = build_clip(config)
    return _loaded(
        model,
        name=name,
        config=config,
        trained={},
        weights=random_identity(config),
        source=source,
    )


def _loaded(
    model: Any,
    *,
    name: str,
    config: Mapping[str, Any],
    trained: Mapping[str, Any],
    weights: Mapping[str, Any],
    source: str,
) -> LoadedClip:
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    identity = {
        "model": name,
        "weights": dict(weights),
        "quick_gelu": bool(config.get("quick_gelu", False)),
    }
    return LoadedClip(
        model=model,
        identity=identity,
        mean=tuple(trained.get("mean") or OPENAI_DATASET_MEAN),
        std=tuple(trained.get("std") or OPENAI_DATASET_STD),
        text_config=config["text_cfg"],
        source=source,
    )


def model_config(name: str, spec: str) -> dict[str, Any]:
    """open_clip's configuration of a model, if it is CLIP's own kind. Raises BackboneError."""
    from open_clip import get_model_config, list_models

    config = get_model_config(name)
    if config is None:
        close = get_close_matches(name, list_models(), n=3, cutoff=0.4)
        raise BackboneError(
            f"CLIP {spec}: expected a model that open_clip knows, found {name}. "
            f"Close names: {', '.join(close) or 'none'}."
        )
    raise_faults(
        BackboneError,
        f"CLIP {spec}",
        list(_tower_faults(config)),
        advice="Supported are CLIP's vision transformers, ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14 "
        "and the like, and its ResNets, such as RN50.",
    )
    return config


def _tower_faults(config: Mapping[str, Any]) -> Iterator[str]:
    vision = config["vision_cfg"]
    others = sorted(set(vision) - _VISION_FIELDS)
    if others:
        yield f"the image tower is not CLIP's own: {', '.join(others)}"
    others = sorted(set(config) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"})
    if others or "hf_model_name" in config["text_cfg"]:
        yield f"the model is not CLIP's own pair of towers: {', '.join(others) or 'hf_model_name'}"


def hub_place(spec: str) -> tuple[str, str, str, str | None, str]:
    """`MODEL:TAG` or `MODEL:TAG@REVISION` → model, tag, hub repository, revision, and the file's
    name where open_clip knows it. Raises BackboneError as `load_clip` does."""
    name, _, weights = spec.partition(":")
    tag, _, revision = weights.partition("@")
    config = model_config(name, spec)
    trained = training_of_tag(name, tag)
    refuse_other_activation(config, trained, name=name, weights=tag)
    repository, file_name = _hub_repository(trained, name=name, tag=tag, spec=spec)
    return name, tag, repository, revision or None, file_name


def _hub_repository(
    trained: Mapping[str, Any], *, name: str, tag: str, spec: str
) -> tuple[str, str]:
    from open_clip import list_pretrained_tags_by_model

    if not trained:
        known = ", ".join(list_pretrained_tags_by_model(name.removesuffix(QUICK))) or "none"
        raise BackboneError(
            f"CLIP {spec}: expected one of {name}'s trainings, found {tag}. Known: {known}."
        )
    repository, _, file_name = trained.get("hf_hub", "").rpartition("/")
    if not repository:
        raise BackboneError(
            f"CLIP {spec}: expected a training on the hub, found one without. {_cure(name)}"
        )
    return repository, file_name


def _cure(name: str) -> str:
    return f"Download the weights elsewhere and use `--clip {name}:FILE`."


def _fetch(
    trained: Mapping[str, Any], *, name: str, tag: str, revision: str | None, spec: str
) -> Path:
    repository, file_name = _hub_repository(trained, name=name, tag=tag, spec=spec)
    return fetch_file(
        repository,
        (file_name,) if file_name else HUB_FILES,
        revision=revision,
        asked=f"CLIP {spec}",
        cure=_cure(name),
    )


def _fill(model: Any, path: Path, *, spec: str) -> None:
    from open_clip.factory import load_state_dict
    from safetensors import SafetensorError

    cure = "Give a safetensors file or a plain state dict in open_clip's naming."
    try:
        with warnings.catch_warnings():
            # PyTorch warns of TorchScript archives and then refuses them; refusing is enough.
            warnings.filterwarnings("ignore", message=".*TorchScript archive", category=UserWarning)
            found = load_state_dict(str(path), device="cpu", weights_only=True)
    except (*_UNREADABLE, SafetensorError) as error:
        raise BackboneError(
            f"CLIP {spec}: {path.name} cannot be read, {_why_unreadable(error)}. {cure}"
        ) from error
    expected = model.state_dict()
    faults = [
        *(f"{key} is missing" for key in expected if key not in found),
        *(f"{key} is unknown to the model" for key in found if key not in expected),
        *(
            f"{key}: expected shape {tuple(expected[key].shape)}, found {tuple(found[key].shape)}"
            for key in expected
            if key in found and expected[key].shape != found[key].shape
        ),
    ]
    if len(faults) > 8:
        faults = [*faults[:8], f"and {len(faults) - 8} more"]
    raise_faults(BackboneError, f"CLIP {spec}: {path.name}", faults, advice=cure)
    model.load_state_dict(found)


def _why_unreadable(error: BaseException) -> str:
    # PyTorch's own sentences advise to switch its safety off.
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, as OpenAI's own files are"
    if isinstance(error, pickle.UnpicklingError):
        return "it is a pickle of more than tensors"
    return first_line(error)
