"""Heads that users write: `MODULE:CLASS` in the place of a family's name.

The module is imported by its name, from the current folder or an installed package. Runs keep the
digest of its file, so that a head whose code has changed is trained anew.
"""

import inspect
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clare_cache.errors import HeadError, VersionWarning, raise_faults
from clare_cache.fingerprint import file_digest
from clare_cache.heads.protocol import Head


def is_own(family: str) -> bool:
    """Whether this names a user's head."""
    return ":" in family


def find_own(family: str) -> type[Head]:
    """The class that `MODULE:CLASS` names. Raises HeadError when there is none, or when it is not
    a head; what the module itself raises passes through."""
    module, _, name = family.partition(":")
    try:
        is_there = all(module.split(".")) and find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise HeadError(
            f"head {family}: expected a Python module {module}, found none of that name. Start "
            f"where {module.partition('.')[0]} lies, add its folder to PYTHONPATH, or install it."
        )
    found = import_module(module)
    kind = getattr(found, name, None)
    if not inspect.isclass(kind):
        own = sorted(k for k, v in vars(found).items() if _is_head(v) and v.__module__ == module)
        raise HeadError(
            f"head {family}: expected a class {name} in {found.__file__}, found "
            f"{', '.join(own) or 'no heads'}. Write MODULE:CLASS."
        )
    if not issubclass(kind, Head):
        bases = ", ".join(base.__qualname__ for base in kind.__bases__)
        raise HeadError(
            f"head {family} in {found.__file__}: expected a subclass of clare_cache.Head, found "
            f"one of {bases}. See docs/own-heads.md."
        )
    faults = [f"{method}: expected to be defined, found nothing"
              for method in sorted(kind.__abstractmethods__)]  # fmt: skip
    if not hasattr(kind, "axes") and "axes_of" not in vars(kind):
        faults.append("axes: expected the axes of each array that it reads, found nothing")
    raise_faults(HeadError, f"head {family} in {found.__file__}", faults)
    kind.family = family
    return kind


def code_of(family: str) -> dict[str, str]:
    """The digest of the file that a user's head is written in; nothing for a shipped head."""
    if not is_own(family):
        return {}
    path = inspect.getsourcefile(find_own(family))
    return {} if path is None else {"code_sha256": file_digest(Path(path))}


def warn_of_other_code(config: Mapping[str, Any], folder: Path) -> None:
    """A VersionWarning when a head of this configuration was trained by other code."""
    here = code_of(config["family"])
    if any(config.get(key) != value for key, value in here.items()):
        warnings.warn(
            f"head in {folder}: the file of {config['family']} has changed since it was trained. "
            "Train again, or restore the file.",
            VersionWarning,
            stacklevel=3,
        )


def _is_head(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Head)
