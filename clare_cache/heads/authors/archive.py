"""A checkpoint file → named tensors, whatever dictionary they are wrapped in, and back.

Reads with `weights_only=True` alone: a file that is a pickle of anything else is refused. Knows no
head and no name of a tensor.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clare_cache.errors import HeadError, raise_faults
from clare_cache.files import write_bytes, write_whole

WRAPPERS = ("state_dict", "model_state_dict", "model")
PARALLEL = "module."
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, AttributeError,
               SafetensorError)  # fmt: skip


@dataclass(frozen=True)
class Archive:
    """The tensors of a file by their names in it; `beside` names what stood next to them, and
    `wrapper` the dictionary that they were in ("" if none)."""

    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    wrapper: str


def read_archive(path: Path) -> Archive:
    """The tensors in a `.safetensors` file or in what `torch.save` wrote, on the CPU.

    A prefix `module.` that all of them share is dropped. Raises HeadError when the file is absent,
    cannot be read without running code from it, or holds something else than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise HeadError(
            f"checkpoint {path}: expected a file, found none. Check the path."
        ) from error
    except _UNREADABLE as error:
        found = (
            "a pickle of more than tensors"
            if isinstance(error, pickle.UnpicklingError)
            else "a file that cannot be read"
        )
        raise HeadError(
            f"checkpoint {path}: expected named tensors, found {found}. "
            "Copy the file again; what needs code to be unpacked is never loaded."
        ) from error
    wrapper = ""
    beside: tuple[str, ...] = ()
    if isinstance(content, Mapping):
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if inside:
            wrapper = inside[0]
            beside = tuple(str(key) for key in content if key != wrapper)
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise HeadError(
            f"checkpoint {path}: expected named tensors, found "
            f"{'an empty dictionary' if isinstance(content, Mapping) else type(content).__name__}. "
            "Name the file that the authors' code saved."
        )
    others = [
        f"{key}: expected a tensor, found {type(value).__name__}"
        for key, value in content.items()
        if not isinstance(value, Tensor)
    ]
    raise_faults(HeadError, f"checkpoint {path}", others)
    tensors = {str(key): value for key, value in content.items()}
    if all(name.startswith(PARALLEL) for name in tensors):
        tensors = {name.removeprefix(PARALLEL): value for name, value in tensors.items()}
    return Archive(tensors, beside, wrapper)


def write_archive(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Writes `content` as `torch.save` does, or the bare tensors if the file is so named
    (`.safetensors`); in one step."""
    if path.suffix == ".safetensors":
        write_whole(path, partial(save_file, {n: t.contiguous() for n, t in tensors.items()}))
    else:
        # Through memory: into a file, torch.save writes that file's name too.
        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        write_bytes(path, buffer.getvalue())
