"""JSON that knows when it was altered: its last field is a checksum of all that stands before."""

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from clare_cache.files import json_bytes

SEAL = "checksum"


def sealed(value: Mapping[str, Any]) -> bytes:
    """The file of a record: its text with the CRC-32C of the text without that field."""
    return json_bytes({**value, SEAL: google_crc32c.value(json_bytes(value))})


def unseal(data: bytes) -> dict[str, Any]:
    """The record in a file. Raises ValueError where a byte is not as `sealed` wrote it."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    found = value.pop(SEAL, None)
    # Spaces and line ends too: what is told apart is bytes, not meanings.
    if sealed(value) != data:
        raise ValueError(f"its {SEAL} {found} does not fit its content")
    return value
