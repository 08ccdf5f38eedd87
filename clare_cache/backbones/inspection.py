"""Whether weights are what they should be, without loading them: names, shapes, digests, settings.

Every network is built on PyTorch's meta device, which takes no memory, and held against the header
of its file. Reaches no hub.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clare_cache.backbones.architectures import build_networks
from clare_cache.backbones.clip_models import QUICK, build_clip, model_config
from clare_cache.backbones.clip_training import refuse_other_activation, training_of_file
from clare_cache.backbones.diffusers_folder import (
    WEIGHT_STEMS,
    fit_faults,
    folder_faults,
    pad_token_id,
    weight_file,
)
from clare_cache.backbones.single_file import (
    parse_single_file,
    prediction_type_of,
    read_shapes,
    shortened,
    single_file_faults,
    weight_faults,
)
from clare_cache.backbones.stable_diffusion import schedule_from
from clare_cache.backbones.weights_record import digest_faults, read_record, split_revision
from clare_cache.errors import BackboneError
from clare_cache.fingerprint import file_digest


@dataclass(frozen=True)
class Inspected:
    """What was found: `option` and `spec` use these weights, `faults` say why they cannot be used.

    `predicts` is a diffusion model's prediction type, `activation` a CLIP's; `revision` is that of
    the record beside the files; `digests` map a file's name to its SHA-256.
    """

    option: str
    spec: str
    predicts: str | None = None
    activation: str | None = None
    revision: str | None = None
    digests: Mapping[str, str] | None = None
    faults: tuple[str, ...] = ()


def inspect_weights(spec: str) -> Inspected:
    """Look at a diffusers folder, a single-file checkpoint, `MODEL:FILE`, or a folder of `weights
    fetch`. Raises BackboneError for a spelling that is none of these."""
    folder = Path(spec).expanduser()
    if folder.is_dir():
        record = read_record(folder)
        if record and record.clip:
            model = record.clip.partition(":")[0]
            names = [name for name in record.files if not name.endswith(".json")]
            return _inspect_clip(model, folder / (names or [""])[0])
        return _inspect_folder(folder)
    if parse_single_file(spec) is not None and not _is_clip(spec):
        return _inspect_single_file(spec)
    if ":" in spec:
        model, _, file = spec.partition(":")
        return _inspect_clip(model, Path(split_revision(file)[0]).expanduser())
    raise BackboneError(
        f"weights check {spec}: expected a folder, a .safetensors checkpoint or MODEL:FILE, found "
        "none of them. Check the path."
    )


def _is_clip(spec: str) -> bool:
    """`ViT-L-14:a.safetensors` is a CLIP, `a.safetensors:epsilon` a checkpoint."""
    from open_clip import list_models

    return spec.partition(":")[0] in list_models()


def _inspect_folder(folder: Path) -> Inspected:
    record = read_record(folder)
    faults = list(folder_faults(folder))
    scheduler: dict[str, Any] = {}
    if not faults:
        try:
            scheduler = read_settings(folder / "scheduler" / "scheduler_config.json")
            schedule_from(scheduler)
            faults += _folder_weight_faults(folder)
        except BackboneError as error:
            faults.append(str(error))
    if record:
        faults += digest_faults(folder, record)
    return Inspected(
        option="--sd",
        spec=str(folder),
        predicts=(scheduler.get("prediction_type") or "epsilon") if scheduler else None,
        revision=record.revision if record else None,
        digests={
            path.relative_to(folder).as_posix(): file_digest(path)
            for part in WEIGHT_STEMS
            if (path := weight_file(folder, part)).is_file()
        },
        faults=tuple(dict.fromkeys(faults)),
    )


def _folder_weight_faults(folder: Path) -> Iterator[str]:
    configs = {part: read_settings(folder / part / "config.json") for part in WEIGHT_STEMS}
    with torch.device("meta"):
        networks = build_networks(configs)
    for part, network in zip(("unet", "vae", "text_encoder"), networks, strict=True):
        shapes = read_shapes(weight_file(folder, part), f"{folder}: {part}")
        found = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        found = {_renamed(part, name): value for name, value in found.items()}
        yield from shortened(list(weight_faults(part, network.state_dict(), found)))
    unet, vae, text_encoder = networks
    yield from fit_faults(unet.config, vae.config, text_encoder.config, pad_token_id(folder))


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of a VAE's attention weights in files of older libraries → their names now."""


def _renamed(part: str, name: str) -> str:
    """What the libraries call a weight of an older file when they load it."""
    if part == "text_encoder":
        return name.removeprefix("text_model.")
    for old, new in OLD_ATTENTION.items() if part == "vae" else ():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def _inspect_single_file(spec: str) -> Inspected:
    file = parse_single_file(spec)
    assert file is not None
    asked = f"Stable Diffusion {spec}"
    predicts, digests = None, None
    try:
        faults = shortened(single_file_faults(file.path, asked=asked))
        digests = {file.path.name: file_digest(file.path)}
        predicts = prediction_type_of(file, digests[file.path.name], asked=asked)
    except BackboneError as error:
        faults = [str(error)]
    return Inspected("--sd", spec, predicts=predicts, digests=digests, faults=tuple(faults))


def _inspect_clip(model: str, path: Path) -> Inspected:
    asked = f"CLIP {model}:{path}"
    record = read_record(path.parent)
    activation, digests, faults = None, None, []
    try:
        config = model_config(model, f"{model}:{path}")
        activation = "QuickGELU" if config.get("quick_gelu") else "plain GELU"
        if not path.is_file():
            raise BackboneError(f"{asked}: expected a weights file, found none. Check the path.")
        digests = {path.name: file_digest(path)}
        trained = training_of_file(model, path, digests[path.name])
        refuse_other_activation(config, trained, name=model, weights=str(path))
        if path.suffix != ".safetensors":
            faults.append(f"{path.name} is a pickle: take the .safetensors file, which is checked")
        else:
            with torch.device("meta"):
                expected = build_clip(config).state_dict()
            found = {
                name: torch.empty(shape, device="meta")
                for name, shape in read_shapes(path, asked).items()
            }
            faults += shortened(list(weight_faults(model.removesuffix(QUICK), expected, found)))
    except BackboneError as error:
        faults.append(str(error))
    if record:
        faults += digest_faults(path.parent, record)
    return Inspected(
        option="--clip",
        spec=f"{model}:{path}",
        activation=activation,
        revision=record.revision if record else None,
        digests=digests,
        faults=tuple(faults),
    )


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file of settings. Raises BackboneError for one that is not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(
            f"{path}: expected JSON, found {error}. Copy it again from the original model."
        ) from error
    if not isinstance(value, dict):
        raise BackboneError(f"{path}: expected settings by name, found another kind of JSON.")
    return value
