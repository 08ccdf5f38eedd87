"""How the values of an array become those of its Zarr array: as they are, compressed, or smaller.

Only Zarr's own codecs are in the files, so that any reader of Zarr opens them: rounding happens
before, and `int8` is a plain array of whole numbers. What loses digits is a declared input.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, ZstdCodec

from clare_cache.errors import StoreError, raise_faults
from clare_cache.types import ArraySpec

NONE, INT8 = "none", "int8"
SPELLINGS = "none, zstd[:LEVEL], blosc[:bitshuffle], bitround:BITS or int8"
ZSTD_LEVEL = 1
BLOSC_BLOCK_NBYTES = 2**18
"""Four times blosc's own choice: what shuffling gains, it gains in long blocks."""

LARGEST = 127
_SPELLING = re.compile(r"none|zstd(:(?P<level>\d+))?|blosc(:bitshuffle)?|bitround:\d+|int8")
_MANTISSA_BITS = {"float16": 10, "float32": 23}


@dataclass(frozen=True)
class Codec:
    """One way to store an array. Raises StoreError for a spelling that is not one."""

    spelling: str = NONE

    def __post_init__(self) -> None:
        match = _SPELLING.fullmatch(self.spelling)
        if not match or int(match["level"] or 0) > 22:
            raise StoreError(f"codec {self.spelling}: expected {SPELLINGS}.")

    @property
    def _name(self) -> str:
        return self.spelling.partition(":")[0]

    @property
    def _argument(self) -> str:
        return self.spelling.partition(":")[2]

    @property
    def declared(self) -> dict[str, str]:
        """What joins the array's declared inputs: the codec, where it loses digits."""
        return {"codec": self.spelling} if self._name in ("bitround", INT8) else {}

    @property
    def is_packed(self) -> bool:
        """Whether the Zarr array holds other numbers than the values, to be unpacked."""
        return self._name == INT8

    @property
    def compressors(self) -> list[BytesBytesCodec] | None:
        """For `zarr.create_array`."""
        if self._name == "zstd":
            return [ZstdCodec(level=int(self._argument or ZSTD_LEVEL))]
        if self._name == "bitround":
            return [ZstdCodec(level=ZSTD_LEVEL)]
        if self._name == "blosc":
            return [
                BloscCodec(
                    cname="zstd",
                    clevel=1,
                    shuffle="bitshuffle" if self._argument else "shuffle",
                    blocksize=BLOSC_BLOCK_NBYTES,
                )
            ]
        return None

    def stored(self, spec: ArraySpec) -> ArraySpec:
        """What one row of the Zarr array is. Raises StoreError where the codec does not fit."""
        bits = _MANTISSA_BITS.get(spec.dtype, 0)
        if self._name == "bitround" and not 0 < int(self._argument) < bits:
            raise StoreError(
                f"codec {self.spelling}: {spec.name} is {spec.dtype} of {bits} bits after the "
                f"point, expected bitround:1 to bitround:{bits - 1}."
            )
        if not self.is_packed:
            return spec
        if spec.dtype != "float16" or len(spec.shape) < 2:
            raise StoreError(
                f"codec int8: {spec.name} is {spec.dtype} of {len(spec.shape)} axes, expected "
                "float16 of tokens × channels."
            )
        n_tokens, n_channels = _tokens(spec)
        n_scales = -(-2 * (n_channels + n_tokens) // n_channels)
        axes = (f"{spec.name}_int8", spec.axes[-1])
        return replace(spec, shape=(n_tokens + n_scales, n_channels), axes=axes, dtype=INT8)

    def are_there(self, spec: ArraySpec, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """(n,) whether packed rows were ever written: their scales are not the fill value."""
        n_tokens, n_channels = _tokens(spec)
        scales = stored.reshape(len(stored), math.prod(stored.shape[1:]))
        return np.any(scales[:, n_tokens * n_channels :] != 0, axis=1)

    def pack(self, spec: ArraySpec, values: NDArray[Any]) -> NDArray[Any]:
        """Rows (n, *row shape) → rows of the Zarr array; NaN rows → its fill value."""
        if self._name == "bitround":
            return _rounded(values, int(self._argument))
        return _pack_int8(spec, values, self.stored(spec)) if self.is_packed else values

    def unpack(self, spec: ArraySpec, stored: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `pack`, but for what it lost; any number of leading axes."""
        return _unpack_int8(spec, stored) if self.is_packed else stored


@cache
def codec_of(spelling: str) -> Codec:
    """The codec of a spelling, checked once."""
    return Codec(spelling)


def lossy_codec(declared: Mapping[str, Any]) -> Codec:
    """The codec that declared inputs name, so that a value made now can be made as stored."""
    return codec_of(declared.get("codec", NONE))


def codecs_by_array(asked: str | Mapping[str, str] | None, arrays: Sequence[str]) -> dict[str, str]:
    """Array → spelling, from one for all or one for each that is named; the others are left out.

    Raises StoreError listing every wrong spelling and unknown array.
    """
    chosen = dict.fromkeys(arrays, asked) if isinstance(asked, str) else dict(asked or {})
    faults = [
        f"{name}: expected one of the arrays {', '.join(arrays)}"
        for name in chosen
        if name not in arrays
    ]
    for name, spelling in chosen.items():
        try:
            codec_of(spelling)
        except StoreError as error:
            faults.append(f"{name}: {error}")
    raise_faults(StoreError, "codec", faults, advice="Correct --codec.")
    return chosen


def _rounded(values: NDArray[Any], bits: int) -> NDArray[Any]:
    flat = np.ascontiguousarray(values)
    rounded = numcodecs.BitRound(keepbits=bits).encode(flat.copy())
    rounded = rounded.view(values.dtype).reshape(values.shape)
    # The largest numbers round up to infinity; those keep their digits.
    return np.where(np.isfinite(rounded), rounded, values)


def _tokens(spec: ArraySpec) -> tuple[int, int]:
    return math.prod(spec.shape[:-1]), spec.shape[-1]


def _pack_int8(spec: ArraySpec, values: NDArray[Any], stored: ArraySpec) -> NDArray[np.int8]:
    """Each value / (scale of its channel × scale of its token) as a whole number in ±127.

    A channel's scale is its root mean square over the picture, a token's the largest of its values
    after that: both are the image's own, so that a row depends on nothing else.
    """
    n_tokens, n_channels = _tokens(spec)
    x = values.reshape(len(values), n_tokens, n_channels).astype(np.float32)
    tiny = np.finfo(np.float16).smallest_subnormal
    channel = np.sqrt((x * x).mean(1, keepdims=True)).astype(np.float16)
    channel = np.maximum(channel, tiny).astype(np.float32)
    x /= channel
    token = np.maximum(np.abs(x).max(2, keepdims=True), tiny)
    # Beyond float16 the scale would be infinite: such a value is cut.
    token = np.minimum(token, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)
    whole = np.clip(np.rint(x * (LARGEST / token)), -LARGEST, LARGEST)
    packed = np.zeros((len(values), *stored.shape), np.int8)
    there = np.isfinite(whole).all((1, 2))
    packed[there, :n_tokens] = whole[there]
    scales = np.concatenate([channel[:, 0], token[:, :, 0]], axis=1).astype("<f2")
    tail = packed.reshape(len(values), -1)[:, n_tokens * n_channels :]
    tail[there, : 2 * scales.shape[1]] = scales[there].view(np.int8)
    return packed


def _unpack_int8(spec: ArraySpec, stored: NDArray[np.int8]) -> NDArray[Any]:
    n_tokens, n_channels = _tokens(spec)
    leading = stored.shape[:-2]
    flat = np.ascontiguousarray(stored).reshape(-1, stored.shape[-2] * n_channels)
    whole = flat[:, : n_tokens * n_channels].reshape(-1, n_tokens, n_channels)
    n_scales = n_channels + n_tokens
    tail = np.ascontiguousarray(flat[:, n_tokens * n_channels :][:, : 2 * n_scales])
    scales = tail.view("<f2").astype(np.float32)
    channel, token = scales[:, None, :n_channels], scales[:, n_channels:, None]
    token = np.where(token == 0, np.nan, token / LARGEST)  # a row that was never written
    values = whole.astype(np.float32) * channel * token
    return values.astype(spec.dtype).reshape(*leading, *spec.shape)
