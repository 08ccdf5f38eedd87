"""Look at images of a store a second time: the networks that made it, the images of its rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clare_cache.backbones import backbone_of, settings_of
from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import StoreMismatch, raise_faults
from clare_cache.extraction.block import Item
from clare_cache.extraction.request import read_all_requests
from clare_cache.fingerprint import differences
from clare_cache.images import find_view
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, Store
from clare_cache.store.codecs import lossy_codec
from clare_cache.workflow.features import paths_by_image, rebuild_backbones

LoadBackbones = Callable[[Mapping[str, ArrayEntry]], Sequence[Backbone]]
"""Names of arrays, each with one of its entries → the backbones that made them."""


@dataclass(frozen=True)
class Weights:
    """Where the weights of a store lie now; by default where they came from."""

    sd: str | None = None
    clip: str | None = None
    device: str = "auto"

    def __call__(self, arrays: Mapping[str, ArrayEntry]) -> Sequence[Backbone]:
        return [
            backbone
            for features in _of_one_mind(arrays)
            for backbone in rebuild_backbones(
                features, sd=self.sd, clip=self.clip, device=self.device
            )
        ]


def _of_one_mind(arrays: Mapping[str, ArrayEntry]) -> list[dict[str, dict[str, Any]]]:
    """The arrays in as few groups as their settings allow: those of a group can share networks."""
    groups: list[tuple[dict[tuple[str, str], Any], dict[str, dict[str, Any]]]] = []
    for name, entry in arrays.items():
        backbone = backbone_of(name) or name
        said = {(backbone, k): v for k, v in settings_of(name, entry.declared).items()}
        said.pop((backbone, "view"), None)
        fitting = (g for g in groups if all(g[0].get(k, v) == v for k, v in said.items()))
        group = next(fitting, None)
        if group is None:
            group = ({}, {})
            groups.append(group)
        settings, features = group
        settings.update(said)
        features[name] = {"declared": entry.declared, "source": entry.source}
    return [features for _, features in groups]


def load_again(
    store: Store, entries: Iterable[ArrayEntry], load_backbones: LoadBackbones
) -> Sequence[Backbone]:
    """The backbones of these arrays. Raises StoreMismatch where they would make others."""
    entries = list(entries)
    backbones = load_backbones({entry.spec.name: entry for entry in entries})
    made = {spec.name: b.declared(spec.name) for b in backbones for spec in b.arrays}
    faults = []
    for entry in entries:
        lossy = lossy_codec(entry.declared).declared
        here = {**made.get(entry.spec.name, {}), **find_view(entry.view).declared(), **lossy}
        faults += [f"{entry.key}: {p}" for p in differences(entry.declared, here)]
    raise_faults(
        StoreMismatch,
        f"store {store.place}: the networks at hand are not those that made it",
        faults,
        advice="Say where the same weights lie now with --sd and --clip.",
    )
    return backbones


def paths_of_rows(store: Store, manifests: Sequence[Manifest]) -> dict[int, tuple[str, ...]]:
    """Row → where its image may lie, as the store's requests and these manifests say."""
    found = read_all_requests(store.place)
    for manifest in manifests:
        paths = paths_by_image(manifest)
        rows = store.rows_of(list(paths)).tolist()
        for row, named in zip(rows, paths.values(), strict=True):
            if row >= 0:
                found[row] = tuple(dict.fromkeys((*found.get(row, ()), *named)))
    return found


def items_of_rows(
    store: Store, rows: Sequence[int], paths: Mapping[int, tuple[str, ...]]
) -> list[Item]:
    """The images of these rows, without those whose path nobody knows."""
    ids = store.ids_of_rows(rows) if rows else []
    return [
        Item(row=row, image_id=image_id, paths=paths[row])
        for row, image_id in zip(rows, ids, strict=True)
        if row in paths
    ]
