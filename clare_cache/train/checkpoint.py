"""Training that can be cut off: every minute all that it needs to go on, in one safetensors file.

The file replaces the one before it in one step. What it says of each member is independent of
stacks: a member goes on in whatever stack it is put. No pickles.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clare_cache.errors import TrainError
from clare_cache.files import write_whole
from clare_cache.train.members import Cohort, Progress, State

SECONDS_BETWEEN = 60.0
FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Place:
    """Where training stands: epochs that are finished, and steps of the next one."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Begun:
    """A checkpoint that lies there: how far it is, its members' labels by their keys, and when it
    was written, in nanoseconds of the file system."""

    folder: Path
    place: Place
    labels: Mapping[str, str]
    written_ns: int


class Checkpoint:
    """The checkpoint of one training, in a folder of its own.

    Members are known by their keys (label → key, by default the label): whoever gives them ensures
    that equal keys stand for equal settings, features and images. What was begun is read from
    `source` (default: the folder itself), which may hold other members too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keys: Mapping[str, str] | None = None,
        source: Path | None = None,
        every_seconds: float | None = None,
    ) -> None:
        self._path = folder / FILE
        self._source = (source or folder) / FILE
        self._keys = keys or {}
        self._every = SECONDS_BETWEEN if every_seconds is None else every_seconds
        self._saved = time.monotonic()
        self._memory: dict[str, Tensor] = {}

    def restore(self, states: Sequence[State]) -> Place:
        """Gives members their weights and numbers back; where to go on, the start if nowhere.

        Raises TrainError for a file that is damaged.
        """
        if not self._source.is_file():
            return Place()
        with _opened(self._source) as file:
            noted = _noted(file)
            for state in states:
                key = self._key(state)
                progress = dict(noted["members"][key]["progress"])
                progress["best_value"] = progress["best_value"] and tuple(progress["best_value"])
                tensors = {n: file.get_tensor(n) for n in file.keys() if n.startswith(f"{key}/")}  # noqa: SIM118
                state.progress = Progress(**progress)
                state.best_weights = _part(tensors, f"{key}/best/")
                if weights := _part(tensors, f"{key}/weights/"):
                    state.member.head.load_state_dict(weights)
                self._memory |= {
                    f"{state.member.label}/{name}": value
                    for name, value in _part(tensors, f"{key}/teacher/").items()
                }
        return Place(**noted["place"])

    def _key(self, state: State) -> str:
        return self._keys.get(state.member.label, state.member.label)

    def restore_teachers(self, cohorts: Sequence[Cohort]) -> None:
        """Gives optimisers their memory and the begun epoch its losses back."""
        for cohort in cohorts:
            memory = [_part(self._memory, f"{state.member.label}/") for state in cohort.states]
            if all(memory):
                cohort.teacher.restore_optimiser([_part(m, "optimiser/") for m in memory])
                if all("lesson" in m for m in memory):
                    cohort.teacher.restore_lessons([m["lesson"] for m in memory])
        self._memory = {}

    def save_if_due(self, states: Sequence[State], cohorts: Sequence[Cohort], place: Place) -> bool:
        """Writes the checkpoint when the last one is a minute old; whether it did."""
        if time.monotonic() - self._saved < self._every:
            return False
        tensors: dict[str, Tensor] = {}
        for state in states:
            tensors |= _named(f"{self._key(state)}/best/", state.best_weights)
        for cohort in cohorts:
            for position, state in enumerate(cohort.states):
                key = self._key(state)
                tensors |= _named(f"{key}/weights/", state.member.head.state_dict())
                remembered = cohort.teacher.optimiser_state(position)
                tensors |= _named(f"{key}/teacher/optimiser/", remembered)
                if place.step:
                    tensors[f"{key}/teacher/lesson"] = cohort.teacher.lesson_state(position)
        noted = {
            "place": asdict(place),
            "members": {
                self._key(state): {"label": state.member.label, "progress": asdict(state.progress)}
                for state in states
            },
        }
        whole = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        metadata = {"progress": json.dumps(noted)}
        write_whole(self._path, partial(save_file, whole, metadata=metadata))
        self._saved = time.monotonic()
        return True

    def remove(self) -> None:
        """Deletes the checkpoint and its folder: the training is finished."""
        self._path.unlink(missing_ok=True)
        if self._path.parent.is_dir():
            self._path.parent.rmdir()


def find_begun(root: Path) -> list[Begun]:
    """The checkpoints in the folders of `root`, the farthest last.

    Raises TrainError for a file that is damaged.
    """
    found = []
    for path in sorted(root.glob(f"*/{FILE}")):
        try:
            with _opened(path) as file:
                noted = _noted(file)
            written = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # another worker has finished it just now
        labels = {key: member["label"] for key, member in noted["members"].items()}
        found.append(Begun(path.parent, Place(**noted["place"]), labels, written))
    return sorted(found, key=lambda begun: (begun.place.epoch, begun.place.step))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError(
            f"checkpoint {path}: expected a whole safetensors file, found "
            f"{type(error).__name__}: {error}. Delete it to train from the start."
        ) from error


def _noted(file: Any) -> dict[str, Any]:
    """What a checkpoint says beside its tensors."""
    noted: dict[str, Any] = json.loads(file.metadata()["progress"])
    if not isinstance(noted["members"], dict):
        raise ValueError("members without keys, as an earlier version wrote them")
    return noted


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}
