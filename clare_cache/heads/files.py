"""A head on disk: `head.safetensors` beside `config.json`. No pickles; no frozen weights.

Knows that features have fingerprints, not what they mean.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clare_cache.errors import HeadError, raise_faults
from clare_cache.files import read_json, write_json, write_whole
from clare_cache.fingerprint import canonical_json, differences, file_digest
from clare_cache.heads.build import build_head
from clare_cache.heads.own import code_of, warn_of_other_code
from clare_cache.heads.protocol import Head, TextTower

FORMAT = 1
WEIGHTS, CONFIG = "head.safetensors", "config.json"
REQUIRED = ("family", "options", "shapes", "needs", "seed", "weights_sha256")


def save_head(head: Head, folder: Path, extra: Mapping[str, Any]) -> None:
    """Writes both files, each in one step; the configuration last, with the weights' digest.

    `extra` is added to the configuration. Raises HeadError if it repeats a key of the head's own.
    """
    tower = head.text
    config = {
        "format": FORMAT,
        "family": head.family,
        "options": head.options,
        "shapes": head.shapes,
        "needs": head.needs,
        "reads": head.reads,
        "n_parameters": sum(p.numel() for p in head.parameters()),
        "seed": head.seed,
        "text": None if tower is None else dict(tower.declared()),
        **code_of(head.family),
    }
    faults = [f"extra: expected other keys than the head's own, found {key}"
              for key in sorted(config.keys() & extra.keys())]  # fmt: skip
    raise_faults(HeadError, f"saving head {head.family}", faults)
    tensors = {name: value.contiguous() for name, value in head.state_dict().items()}
    weights = Path(folder) / WEIGHTS
    write_whole(weights, partial(save_file, tensors))
    config["weights_sha256"] = file_digest(weights)
    write_json(Path(folder) / CONFIG, {**config, **extra})


def load_head(folder: Path, *, text: TextTower | None = None) -> tuple[Head, dict[str, Any]]:
    """The head and its configuration, in float32, on the CPU, in evaluation mode.

    Prompt heads need the text tower that they were trained with. Raises HeadError for absent or
    damaged files, an unknown format, another tower, and weights that do not fit.
    """
    folder = Path(folder)
    config = _read_config(folder)
    warn_of_other_code(config, folder)
    if text is not None and config.get("text") is not None:
        phrases = differences(config["text"], text.declared())
        raise_faults(
            HeadError,
            f"head in {folder}: text tower is not the one it was trained with",
            phrases,
            advice="Give the text tower of the same weights.",
        )
    reads = config.get("reads", {})
    head = build_head(
        config["family"],
        shapes={reads.get(name, name): tuple(s) for name, s in config["shapes"].items()},
        text=text,
        reads=reads,
        seed=config["seed"],
        **config["options"],
    )
    load_weights(head, _read_weights(folder), asked=f"head {head.family} in {folder}")
    if file_digest(folder / WEIGHTS) != config["weights_sha256"]:
        raise HeadError(
            f"head in {folder}: {WEIGHTS} is not the file that {CONFIG} describes, their training "
            "was cut off between the two. Train again, or copy the whole folder."
        )
    return head.eval(), config


def load_weights(head: Head, weights: Mapping[str, Tensor], *, asked: str) -> None:
    """Copies weights into the head. Raises HeadError naming every absent, surplus and misshapen
    tensor; then the head is as it was."""
    own = head.state_dict()
    faults = [f"{name}: expected {tuple(own[name].shape)}, found no such tensor"
              for name in own if name not in weights]  # fmt: skip
    faults += [f"{name}: expected no such tensor, found {tuple(weights[name].shape)}"
               for name in weights if name not in own]  # fmt: skip
    faults += [
        f"{name}: expected {tuple(own[name].shape)}, found {tuple(weights[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    raise_faults(HeadError, f"weights of {asked}", faults)
    head.load_state_dict(dict(weights))


def check_features(config: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Does nothing when every needed array was made as in training; else raises HeadError.

    Both `config["features"]` and `found` map array names to `{"fingerprint": …, "declared": …}`.
    Without a fingerprint in the configuration the inputs that it declares are compared, no others.
    The message has one phrase for each declared input that differs.
    """
    trained = config.get("features", {})
    faults = []
    for name in config["needs"]:
        if name not in trained:
            faults.append(f"{name}: expected a fingerprint from training, found none in {CONFIG}")
        elif name not in found:
            known = trained[name].get("fingerprint", "one of these features")
            faults.append(f"{name}: expected {known}, found no such array")
        elif "fingerprint" not in trained[name]:
            # An imported head: its authors tell some of the declared inputs, and these count.
            told = trained[name]["declared"]
            declared = {key: found[name]["declared"].get(key) for key in told}
            faults += [f"{name}: {phrase}" for phrase in differences(told, declared)]
        elif found[name]["fingerprint"] != trained[name]["fingerprint"]:
            phrases = differences(trained[name]["declared"], found[name]["declared"])
            phrases = phrases or differences(
                {"fingerprint": trained[name]["fingerprint"]},
                {"fingerprint": found[name]["fingerprint"]},
            )
            faults += [f"{name}: {phrase}" for phrase in phrases]
    raise_faults(
        HeadError,
        f"head {config['family']}: the features are not those it was trained on",
        faults,
        advice="Extract the features as they were for training, or train a head on these.",
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise HeadError(
            f"head in {folder}: expected {CONFIG}, found none. Name a folder that a training run "
            "or an import wrote."
        ) from error
    except ValueError as error:
        raise HeadError(
            f"head in {folder}: expected JSON, found something else in {CONFIG} ({error}). "
            "Restore the file, or train again."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise HeadError(
            f"head in {folder}: expected format {FORMAT}, found {canonical_json(found)} in "
            f"{CONFIG}. Read it with the version of clare-cache that wrote it."
        )
    faults = [f"{key}: expected a value, found none" for key in REQUIRED if key not in config]
    raise_faults(HeadError, f"{CONFIG} in {folder}", faults)
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise HeadError(
            f"head in {folder}: expected {WEIGHTS}, found none. Train again, or copy the whole "
            "folder."
        ) from error
    except SafetensorError as error:
        raise HeadError(
            f"head in {folder}: expected a safetensors file, found a damaged one in {WEIGHTS} "
            f"({error}). Copy the file again, or train again."
        ) from error
