"""Weights for machines without network: fetched where there is one, checked where there is none."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clare_cache.errors import BackboneError

if TYPE_CHECKING:
    from clare_cache.backbones.fetch import Fetched
    from clare_cache.backbones.inspection import Inspected


def fetch_weights(
    out: str | Path, *, sd: str | None = None, clip: str | None = None
) -> "list[Fetched]":
    """The needed files of a Stable Diffusion repository and of a CLIP training, below `out`.

    `sd` is a hub id with an optional `@revision`, `clip` an open_clip MODEL:TAG. Revision and
    digests are noted in `weights.json` beside the files. Raises BackboneError.
    """
    from clare_cache.backbones.fetch import fetch_clip, fetch_stable_diffusion

    if sd is None and clip is None:
        raise BackboneError(
            "weights fetch: expected --sd ID, --clip MODEL:TAG or both, found neither."
        )
    fetched = []
    if sd is not None:
        fetched.append(fetch_stable_diffusion(sd, Path(out)))
    if clip is not None:
        fetched.append(fetch_clip(clip, Path(out)))
    return fetched


def check_weights(specs: Sequence[str]) -> "list[Inspected]":
    """What is wrong with each of these folders and files, without loading them or any network."""
    from clare_cache.backbones.inspection import inspect_weights

    return [inspect_weights(spec) for spec in specs]
