"""The model card of a run: README.md, short and plain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from clare_cache.evaluate.table import ALL, TRAINING, as_records, first_view

FACTS = ("n_images", "epochs", "best_epoch", "seconds", "seed")
"""What the card tells of the training; config.json has the rest."""


def write_card(
    name: str,
    *,
    config: Mapping[str, Any],
    table: pd.DataFrame,
    warnings: Sequence[str],
    evaluated_on: Mapping[str, Any] | None = None,
) -> str:
    """The model card of the run folder `name`: head, data, scores, limits. Markdown.

    `evaluated_on` names the store and manifest behind the scores, where they are not those of
    the training.
    """
    trained = config.get("train", {})
    options = ", ".join(f"{k}={v}" for k, v in config.get("options", {}).items()) or "none"
    size = config.get("n_parameters")
    features = [
        f"* `{name}`: {_known_of(item)}" for name, item in config.get("features", {}).items()
    ]
    facts = ", ".join(f"{key} {trained[key]}" for key in FACTS if key in trained)
    known = ", ".join(trained.get("generators", ())) or "not recorded"
    lines = [
        f"# {config['label']}",
        "",
        "A head that tells generated images from real ones. It reads cached features of frozen "
        "networks and never sees an image.",
        "",
        f"* family: `{config['family']}`; options: {options}",
        f"* trained parameters: {f'{size:,}' if size is not None else 'not recorded'}",
        f"* training: {facts or 'not recorded'}",
        f"* generators in training: {known}",
        f"* trained on manifest: {config.get('manifest') or 'not recorded'}",
        f"* trained on store: {config.get('store') or 'not recorded'}",
        f"* threshold: fake when the probability is above {config['threshold']:.4g}, chosen on: "
        f"{config.get('threshold_from', 'not recorded')}",
        "",
        "## Features it was trained on",
        "",
        *(features or ["not recorded"]),
        "",
        "It refuses features that were made otherwise.",
        "",
        "## Scores",
        "",
        f"Manifest: {_scored(config, evaluated_on, 'manifest')}. "
        f"Store: {_scored(config, evaluated_on, 'store')}.",
        "",
        "Percent; brackets are 95 % intervals from a bootstrap over groups. Accuracy is taken at "
        "the threshold above, which flatters the validation split it was chosen on. Every number "
        "is for the images that have a score (coverage).",
        "",
        *_card_table(table),
        *(["", "Warnings:", "", *(f"* {text}" for text in warnings)] * bool(warnings)),
        "",
        "## Use",
        "",
        "```python",
        "import clare_cache as cc",
        "",
        f'head = cc.load_head("{name}")',
        "```",
        "",
        f"or `clare-cache predict {name} IMAGES…`.",
        "",
        "## Limits",
        "",
        "A score is evidence, not proof. It was measured on the images named above; other "
        "generators, cameras, sizes or compression can change both scores and threshold. A "
        "generator that was seen in training is easier than one that was not.",
        "",
    ]
    return "\n".join(lines)


def _scored(config: Mapping[str, Any], evaluated_on: Mapping[str, Any] | None, name: str) -> str:
    return (evaluated_on or config).get(name) or "not recorded"


def _known_of(feature: Mapping[str, Any]) -> str:
    if "fingerprint" in feature:
        return f"fingerprint `{feature['fingerprint']}`"
    declared = [f"{key} {value}" for key, value in feature.get("declared", {}).items()]
    return ", ".join(declared) or "nothing is known of it"


def _card_table(table: pd.DataFrame) -> Iterator[str]:
    yield "| split | source | generator | seen | real + fake | AP | AUC | accuracy | coverage |"
    yield "|---|---|---|---|--:|--:|--:|--:|--:|"
    shown = table[(table["view"] == first_view(table)) & (table["split"] != TRAINING)]
    for row in as_records(shown):
        cells = [
            row["split"],
            row["source"],
            row["generator"],
            _seen(row),
            f"{row['n_real']} + {row['n_fake']}",
            _bounded(row, "average_precision"),
            _bounded(row, "auc"),
            _bounded(row, "accuracy_validation_threshold"),
            f"{row['n_scored']} of {row['n_asked']}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _seen(row: Mapping[str, Any]) -> str:
    if row["generator"] == ALL:
        return ""
    if row["seen_in_training"]:
        return "in training"
    if row["seen_in_training"] is None:
        return "not known"
    return "in validation" if row["seen_in_validation"] else "no"


def _bounded(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row[name + suffix] for suffix in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{value:.1%}" if low is None else f"{value:.1%} ({low:.1%} to {high:.1%})"
