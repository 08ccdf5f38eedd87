"""Training as it goes, for those who watch it elsewhere: TensorBoard, Weights & Biases, MLflow.

Optional, all three; `history.jsonl` of each run folder is always written. What is sent are the
lines of that file. W&B works offline unless the user has logged in or says otherwise.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from clare_cache.errors import TrainError

TRACKERS = ("tensorboard", "wandb", "mlflow")


class OnEpoch(Protocol):
    """Hears of each member's finished epoch: its label, and the line of its history. What it
    answers, if anything, is why the member need not go on."""

    def __call__(self, label: str, line: Mapping[str, Any], /) -> str | None: ...


def ignore_epoch(label: str, line: Mapping[str, Any], /) -> None:
    """For those who do not watch."""
    return None


@contextmanager
def track(
    names: Sequence[str], *, out: Path, settings: Mapping[str, Mapping[str, Any]]
) -> Iterator[OnEpoch]:
    """A listener that passes every epoch on to the trackers of these names.

    `settings` are each member's, by label, shown beside its curves. TensorBoard writes below
    `out`/tensorboard; MLflow and W&B go where their own environment variables say, W&B offline
    below `out` by default. Raises TrainError for unknown names and packages that are absent.
    """
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise TrainError(
            f"tracking: expected {', '.join(TRACKERS)}, found {', '.join(unknown)}. "
            "Correct --track."
        )
    openers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    with ExitStack() as stack:
        listeners = [stack.enter_context(openers[name](out, settings)) for name in names]

        def tell(label: str, line: Mapping[str, Any], /) -> None:
            for listener in listeners:
                listener(label, line)

        yield tell


@contextmanager
def _tensorboard(out: Path, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[OnEpoch]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _absent("tensorboard") from error
    writers: dict[str, Any] = {}

    def tell(label: str, line: Mapping[str, Any], /) -> None:
        if label not in writers:
            writers[label] = SummaryWriter(str(out / "tensorboard" / label))
            text = ", ".join(f"{k} {v}" for k, v in settings.get(label, {}).items())
            writers[label].add_text("settings", text or "as in the recipe")
        for name, value in _numbers(line).items():
            writers[label].add_scalar(name, value, line["epoch"])

    try:
        yield tell
    finally:
        for writer in writers.values():
            writer.close()


@contextmanager
def _wandb(out: Path, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[OnEpoch]:
    try:
        import wandb
    except ImportError as error:
        raise _absent("wandb") from error
    is_known = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_MODE"))
    runs: dict[str, Any] = {}

    def tell(label: str, line: Mapping[str, Any], /) -> None:
        if label not in runs:
            runs[label] = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "clare-cache"),
                name=label,
                dir=str(out),
                config=dict(settings.get(label, {})),
                mode=None if is_known else "offline",
                # Members of a sweep are open side by side.
                reinit="create_new",
            )
        runs[label].log(_numbers(line), step=line["epoch"])

    try:
        yield tell
    finally:
        for run in runs.values():
            run.finish()


@contextmanager
def _mlflow(out: Path, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[OnEpoch]:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _absent("mlflow") from error
    client = MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "clare-cache")
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    runs: dict[str, str] = {}

    def tell(label: str, line: Mapping[str, Any], /) -> None:
        if label not in runs:
            run = client.create_run(experiment, run_name=label, tags={"out": str(out)})
            runs[label] = run.info.run_id
            for key, value in settings.get(label, {}).items():
                client.log_param(runs[label], key, value)
        for key, value in _numbers(line).items():
            client.log_metric(runs[label], key, value, step=line["epoch"])

    try:
        yield tell
    finally:
        for run_id in runs.values():
            client.set_terminated(run_id)


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if name != "epoch" and isinstance(value, int | float)
    }


def _absent(name: str) -> TrainError:
    return TrainError(
        f"tracking with {name}: it is not installed. Say: pip install 'clare-cache[{name}]'"
    )
