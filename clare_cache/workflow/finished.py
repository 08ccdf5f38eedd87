"""A run folder that stays: what the recipe says of it today, and whether its scores are its own."""

from collections.abc import Sequence
from pathlib import Path

from clare_cache.evaluate import read_config
from clare_cache.files import read_json, write_text
from clare_cache.fingerprint import file_digest
from clare_cache.recipe import Recipe, read_recipe
from clare_cache.train.runs import RECIPE_FILE
from clare_cache.workflow.results import METRICS_FILE, PREDICTIONS_FILE


def bring_up_to_date(run: Path, recipe: Recipe) -> None:
    """Writes what the recipe says today of a run that stays: title, test settings, expectations."""
    before = read_recipe(run / RECIPE_FILE)
    today = recipe.with_heads(before.head)
    kept = ("head", "train", "backbones")
    changed = {name: getattr(today, name) for name in type(recipe).model_fields if name not in kept}
    now = before.model_copy(update=changed)
    if now != before:
        write_text(run / RECIPE_FILE, now.to_yaml())


def is_evaluated(run: Path, *, splits: Sequence[str], views: Sequence[str]) -> bool:
    """Whether the scores are of the run's weights and images, in these splits and views."""
    if not (run / METRICS_FILE).is_file() or not (run / PREDICTIONS_FILE).is_file():
        return False
    record, config = read_json(run / METRICS_FILE), read_config(run)
    return (
        record["weights_sha256"] == config["weights_sha256"]
        and record["predictions"] == file_digest(run / PREDICTIONS_FILE)
        and record["evaluated_on"]["manifest_fingerprint"] == config["manifest_fingerprint"]
        and set(splits) <= {row["split"] for row in record["table"]}
        and set(views) <= {row["view"] for row in record["table"]}
    )
