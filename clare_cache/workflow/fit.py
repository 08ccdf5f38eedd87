"""Why a store does or does not fit a request: arrays, views, declared inputs, images, versions.

A request is what a recipe, a call of `extract` or another store asks for. Says all at once, in
sentences; raises nothing for what does not fit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clare_cache.backbones import backbone_of, settings_of
from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.extraction.versions import version_differences
from clare_cache.fingerprint import differences
from clare_cache.heads import head_needs
from clare_cache.images import find_view
from clare_cache.manifest import Manifest
from clare_cache.recipe import Recipe
from clare_cache.store import ArrayHandle, Store
from clare_cache.types import CLEAN, ImageId
from clare_cache.workflow.features import settings_from


@dataclass(frozen=True)
class Misfit:
    """One sentence. A `warning` does not keep the store from being used."""

    kind: str
    where: str
    sentence: str
    warning: bool = False

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Request:
    """What a store is held against.

    `arrays` maps `<view>/<array>` to all declared inputs where `exact`, else to its view and the
    settings of its backbone that are asked for. `images` maps each image to its path or another
    name for people; None asks for no images. `of_array` narrows the images of single arrays.
    """

    arrays: Mapping[str, Mapping[str, Any]]
    images: Mapping[ImageId, str] | None = None
    exact: bool = False
    of_array: Mapping[str, Collection[ImageId]] = field(default_factory=dict)


def request_of_recipe(
    recipe: Recipe, *, views: Sequence[str] = (CLEAN,), manifest: Manifest | None = None
) -> Request:
    """The arrays that the recipe's heads need, with the settings that it states.

    Precision is the extraction's own affair, as in `train-head`.
    """
    needs = sorted({n for head in recipe.head for n in head_needs(head.family, **head.options)})
    sections = {"error_map": "error_map", "clip": "image_tower"}
    stated: dict[str, dict[str, Any]] = {}
    for name in needs:
        section = sections[(backbone_of(name) or "clip")]
        said = section in recipe.backbones.model_fields_set
        settings = _settings(getattr(recipe.backbones, section)) if said else {}
        stated[name] = {k: v for k, v in settings.items() if "dtype" not in k}
    return Request(_per_view(stated, views), _images(manifest))


def request_of_options(
    *,
    features: Sequence[str],
    views: Sequence[str] = (CLEAN,),
    error_map: ErrorMapConfig | None = None,
    image_tower: ClipConfig | None = None,
    manifest: Manifest | None = None,
) -> Request:
    """What `extract` with these options would ask for, whatever the weights."""
    settings = {
        "error_map": _settings(error_map or ErrorMapConfig()),
        "clip": _settings(image_tower or ClipConfig()),
    }
    stated = {name: settings[(backbone_of(name) or "clip")] for name in features}
    return Request(_per_view(stated, views), _images(manifest))


def request_of_store(store: Store, *, manifest: Manifest | None = None) -> Request:
    """Everything that another store holds, of the manifest's images if one is named."""
    images = _images(manifest) or dict.fromkeys(store.image_ids, "")
    return Request(
        {key: dict(store[key].declared) for key in store},
        images,
        exact=True,
        of_array={key: _present(store, store[key]) for key in store},
    )


def compare(store: Store, request: Request) -> list[Misfit]:
    """Every way in which the store does not fit the request, and every warning."""
    there = set(store.views)
    found = []
    for view in sorted({key.partition("/")[0] for key in request.arrays}):
        if view not in there:
            found.append(
                Misfit("view", view, f"view {view} is missing, found {', '.join(store.views)}")
            )
    for key, declared in request.arrays.items():
        view = key.partition("/")[0]
        if key in store:
            found += _compare_array(store, store[key], declared, request)
        elif view in there:
            held = ", ".join(other for other in store if other.startswith(f"{view}/"))
            found.append(Misfit("array", key, f"array {key} is missing, found {held}"))
    asked = [key for key in request.arrays if key in store]
    records = [record for key in asked for record in store[key].records.values()]
    found += [
        Misfit("version", "", sentence, warning=True) for sentence in version_differences(records)
    ]
    return found


def _compare_array(
    store: Store, handle: ArrayHandle, declared: Mapping[str, Any], request: Request
) -> list[Misfit]:
    key = handle.entry.key
    there = handle.declared
    if not request.exact:
        there = _settings_found(handle)
        declared = {k: v for k, v in declared.items() if k in there}
        there = {k: there[k] for k in declared}
    found = [Misfit("declared", key, f"{key}: {p}") for p in differences(declared, there)]
    if request.images is None:
        return found
    asked = [i for i in request.images if i in request.of_array.get(key, request.images)]
    present = _present(store, handle)
    lines = {
        line.image_id: line for line in store.ledger(handle.entry.view, [handle.entry.spec.name])
    }
    absent = [image for image in asked if image not in present]
    failed = [image for image in absent if image in lines]
    missing = [image for image in absent if image not in lines]
    if missing:
        found.append(
            Misfit(
                "image",
                key,
                f"{key} lacks {len(missing)} of {len(asked)} images, the first is "
                f"{request.images[missing[0]] or missing[0]}",
            )
        )
    if failed:
        line = lines[failed[0]]
        found.append(
            Misfit(
                "ledger",
                key,
                f"{key}: {len(failed)} of {len(asked)} images are in the ledger, the first is "
                f"{line.path} ({line.stage}: {line.reason})",
                warning=True,
            )
        )
    return found


def _settings(config: ErrorMapConfig | ClipConfig) -> dict[str, Any]:
    """What a configuration asks for, with what `auto` comes to."""
    asked = asdict(config)
    if isinstance(config, ErrorMapConfig):
        asked["vae_dtype"] = config.vae_arithmetic
    return asked


def _settings_found(handle: ArrayHandle) -> dict[str, Any]:
    """The settings that an array was made with, those left out of `declared` by their defaults.

    Without those that its name says, and those that do not concern it.
    """
    name, declared = handle.entry.spec.name, handle.declared
    said = settings_of(name, declared)
    named = {k for k, v in declared.items() if v is not None} - said.keys()
    if backbone_of(name) == "error_map":
        found = _settings(settings_from(ErrorMapConfig, said))
    else:
        found = _settings(settings_from(ClipConfig, said))
    without = named | ({"tap"} if declared.get("tap") is None else set())
    settings = {k: v for k, v in found.items() if k in declared and k not in without}
    return settings | {"view": declared.get("view")}


def _present(store: Store, handle: ArrayHandle) -> frozenset[ImageId]:
    present = handle.present
    rows = store.rows_of(store.image_ids).tolist()
    return frozenset(i for i, row in zip(store.image_ids, rows, strict=True) if present[row])


def _per_view(
    stated: Mapping[str, Mapping[str, Any]], views: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    return {
        f"{view}/{name}": {**settings, **find_view(view).declared()}
        for view in views
        for name, settings in stated.items()
    }


def _images(manifest: Manifest | None) -> dict[ImageId, str] | None:
    if manifest is None:
        return None
    rows = manifest.rows.drop_duplicates("image_id")
    return dict(zip(map(ImageId, rows["image_id"]), rows["path"], strict=True))
