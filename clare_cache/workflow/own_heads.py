"""A user's own head, tried before a long training depends on it."""

from typing import Any

from clare_cache.backbones import load_text_tower
from clare_cache.errors import HeadError
from clare_cache.heads import needs_text
from clare_cache.store import features_of, open_store
from clare_cache.train.contract import check_head


def try_head(
    family: str, *, store: str | None = None, clip: str | None = None, **options: Any
) -> dict[str, list[str]]:
    """What is asked of a head → the faults found there.

    Shapes are those of the arrays in `store`, by default ViT-L/14's and Stable Diffusion's;
    `clip` names the text tower of prompt heads. Raises HeadError where it cannot be built.
    """
    shapes = None
    if store is not None:
        entries = features_of(open_store(store))
        shapes = {name: tuple(entry.spec.shape) for name, entry in entries.items()}
    text = None
    if needs_text(family):
        if clip is None:
            raise HeadError(f"head {family}: expected a text tower. Name its CLIP with `--clip`.")
        text = load_text_tower(clip)
    return check_head(family, shapes=shapes, text=text, **options)
