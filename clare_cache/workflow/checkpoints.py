"""The authors' checkpoints as run folders, run folders as the authors' checkpoints, model cards."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from clare_cache.backbones import backbone_of, load_text_tower
from clare_cache.data.regions import stored
from clare_cache.errors import ClareCacheError
from clare_cache.evaluate import TABLE_COLUMNS, assess_run, read_config, write_card
from clare_cache.files import read_json, write_text
from clare_cache.fingerprint import file_digest
from clare_cache.heads.authors import Imported, export_head
from clare_cache.heads.authors import import_head as read_authors
from clare_cache.heads.authors.layouts import LAYOUTS
from clare_cache.heads.build import needs_text
from clare_cache.heads.files import save_head
from clare_cache.heads.protocol import Head
from clare_cache.recipe import FOLDER_NAME, About, HeadSection, Recipe
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.workflow.results import METRICS_FILE
from clare_cache.workflow.training import load_run

CARD_FILE = "README.md"
RELEASED_FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "rine": ("clip_block_cls", {"geometry": "center-crop", "tap": "mlp_input"}),
    "linear": ("clip_embedding", {"geometry": "center-crop"}),
}
"""Family → its array, and how its authors make it for a test."""
RELEASED_TOWERS = {
    ("clip_block_cls", (24, 1024)): "ViT-L-14-quickgelu",
    ("clip_block_cls", (12, 768)): "ViT-B-32-quickgelu",
    ("clip_embedding", (768,)): "ViT-L-14-quickgelu",
}
"""Row shapes → the CLIP, with OpenAI's weights, whose features the authors trained on."""


def import_head(path: str | Path, *, family: str, clip: str | None = None, **options: Any) -> Head:
    """The head in an authors' checkpoint, on the CPU, in evaluation mode.

    `family` is rine, ufd, clare or prompt_tuning; `clip` names the text tower of the last two.
    `options` are those that no tensor of the file tells. Raises HeadError for what does not fit.
    """
    return _import(Path(path), family=family, clip=clip, options=options).head


def import_run(
    path: str | Path, out: str | Path, *, family: str, clip: str | None = None, **options: Any
) -> Imported:
    """Writes the head in an authors' checkpoint as the run folder `out`, with a model card.

    Its threshold is 0.5, as released. It declares of its features what its authors state, no more:
    a store is accepted when it agrees with that.
    """
    path, out = Path(path), Path(out)
    found = _import(path, family=family, clip=clip, options=options)
    head = found.head
    label = out.name if FOLDER_NAME.fullmatch(out.name) else head.family
    features, sources = _requirements(head, clip)
    recipe = Recipe(
        about=About(title=f"{label}: imported from {path.name}", remarks=found.remarks),
        head=(HeadSection(family=head.family, label=label, options=head.options),),
    )
    write_text(out / RECIPE_FILE, recipe.to_yaml())
    save_head(
        head,
        out,
        {
            "label": label,
            "threshold": 0.5,
            "threshold_from": "no images; 0.5 as released",
            "train": {},
            "features": features,
            "sources": sources,
            "text_source": clip or "",
            "imported": {
                "file": path.name,
                "sha256": file_digest(path),
                "family": family,
                "ignored": list(found.ignored),
                "remarks": list(found.remarks),
            },
            "versions": {name: version(name) for name in ("clare-cache", "torch", "numpy")},
        },
    )
    write_model_card(out)
    return found


def next_steps(run: str | Path) -> list[str]:
    """Commands that score pictures with an imported head: those of a folder, where all is known
    that makes its features; and those of a manifest, through a store made as it needs."""
    config = read_config(Path(run))
    sources = {name: config["sources"].get(name) for name in stored(config["needs"])}
    clips = {sources[name] or "CLIP" for name in sources if backbone_of(name) == "clip"}
    flags = [f" --clip {clip}" for clip in sorted(clips)]
    flags += [" --sd SD"] * any(backbone_of(name) == "error_map" for name in sources)
    told = {k: v for name in sources for k, v in config["features"][name]["declared"].items()}
    made = [f" --{key} {told[key]}" for key in ("geometry", "tap") if key in told]
    steps = [
        f"clare-cache extract MANIFEST STORE --root DIR --features {','.join(sources)}"
        + "".join([*flags, *made]),
        f"clare-cache evaluate {run} --store STORE --manifest MANIFEST",
    ]
    is_known = all(sources.values()) and all(config["features"][n]["declared"] for n in sources)
    return [f"clare-cache predict {run} IMAGES, or", *steps] if is_known else steps


def export_run(run: str | Path, path: str | Path, *, clip: str | None = None) -> tuple[str, ...]:
    """Writes a run's head as its authors' code saves it; remarks on what differs from their file.

    Raises HeadError for families and options that no authors' code has.
    """
    head, _ = load_run(run, clip=clip, device="cpu")
    return export_head(head, Path(path))


def write_model_card(run: str | Path) -> str:
    """The model card of a run, also written to its README.md; without scores before `evaluate`."""
    run = Path(run)
    config = read_config(run)
    table, warnings = pd.DataFrame(columns=list(TABLE_COLUMNS)), tuple[str, ...]()
    evaluated_on = None
    if (run / METRICS_FILE).is_file():
        found = assess_run(run)
        table, warnings = found.table, found.warnings
        evaluated_on = read_json(run / METRICS_FILE)["evaluated_on"]
    card = write_card(
        str(run), config=config, table=table, warnings=warnings, evaluated_on=evaluated_on
    )
    write_text(run / CARD_FILE, card)
    return card


def _import(path: Path, *, family: str, clip: str | None, options: Mapping[str, Any]) -> Imported:
    text = None
    if family in LAYOUTS and needs_text(LAYOUTS[family].family) and clip is not None:
        text = load_text_tower(clip, device="cpu")
    try:
        return read_authors(path, family=family, text=text, **options)
    except ClareCacheError as error:
        if text is None and "expected a text tower" in str(error):
            raise type(error)(f"{error}\nName its CLIP with --clip.") from error
        raise


def _requirements(
    head: Head, clip: str | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str | None]]:
    """What is known of the features behind a checkpoint, and where their weights come from.

    No checkpoint names the weights of its CLIP. The released ones are known to stand on OpenAI's;
    prompt heads are tied to the text tower that they were imported with.
    """
    features: dict[str, dict[str, Any]] = {name: {"declared": {}} for name in head.needs}
    sources: dict[str, str | None] = dict.fromkeys(head.needs)
    if head.text is not None:
        weights = head.text.declared()["weights"]
        for name in head.needs:
            if backbone_of(name) == "clip":
                features[name] = {"declared": {"weights": weights}}
                sources[name] = clip
    elif head.family in RELEASED_FEATURES:
        name, declared = RELEASED_FEATURES[head.family]
        model = RELEASED_TOWERS.get((name, head.shapes[name]))
        if model is not None:
            declared = {"model": model, "quick_gelu": True, "size_px": 224, **declared}
            sources[name] = f"{model}:openai"
        features[name] = {"declared": dict(declared)}
    return features, sources
