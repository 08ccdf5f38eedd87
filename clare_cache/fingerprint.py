"""Declared inputs → canonical JSON → a short hash: the one rule of cache validity.

What is hashed is what was *declared* (weights digest, preprocessing, timestep …), never paths,
dates or source text. Fields that are None are left out, so that adding an option later, None by
default, does not orphan the stores made before it existed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGEST_CHARS = 16


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, None fields of mappings dropped.

    Raises TypeError for what JSON cannot hold, ValueError for NaN and infinities.
    """
    return json.dumps(_without_none(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits that are equal exactly when the declared inputs are."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_CHARS]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(asked: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One phrase for each declared input that differs, e.g. `timestep: asked 200, found 280`."""
    asked, found = _without_none(asked), _without_none(found)
    phrases = []
    for key in sorted(asked.keys() | found.keys()):
        name = f"{prefix}{key}"
        a, f = asked.get(key), found.get(key)
        if isinstance(a, Mapping) and isinstance(f, Mapping):
            phrases += differences(a, f, prefix=f"{name}.")
        elif canonical_json(a) != canonical_json(f):
            phrases.append(f"{name}: asked {_spoken(a)}, found {_spoken(f)}")
    return phrases


def _spoken(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value
