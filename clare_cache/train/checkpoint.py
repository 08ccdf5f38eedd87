"""Training that can be cut off: every minute all that it needs to go on, in one safetensors file.

The file replaces the one before it in one step. What it says of each member is independent of
stacks: a member goes on in whatever stack it is put. No pickles.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

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


class Checkpoint:
    """The checkpoint of one training, in a folder of its own.

    The same members, data and settings must come back to the same folder: whoever names it by
    their fingerprint ensures that.
    """

    def __init__(self, folder: Path, *, every_seconds: float | None = None) -> None:
        self._path = folder / FILE
        self._every = SECONDS_BETWEEN if every_seconds is None else every_seconds
        self._saved = time.monotonic()
        self._memory: dict[str, Tensor] = {}

    def restore(self, states: Sequence[State]) -> Place:
        """Gives members their weights and numbers back; where to go on, the start if nowhere.

        Raises TrainError for a file that is damaged.
        """
        if not self._path.is_file():
            return Place()
        try:
            with safe_open(self._path, framework="pt") as file:
                noted = json.loads(file.metadata()["progress"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainError(
                f"checkpoint {self._path}: expected a whole safetensors file, found "
                f"{type(error).__name__}: {error}. Delete it to train from the start."
            ) from error
        for number, state in enumerate(states):
            progress = noted["members"][number]
            progress["best_value"] = progress["best_value"] and tuple(progress["best_value"])
            state.progress = Progress(**progress)
            state.best_weights = _part(tensors, f"{number}/best/")
            if weights := _part(tensors, f"{number}/weights/"):
                state.member.head.load_state_dict(weights)
            self._memory |= {
                f"{state.member.label}/{name}": value
                for name, value in _part(tensors, f"{number}/teacher/").items()
            }
        return Place(**noted["place"])

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
        number_of = {id(state): number for number, state in enumerate(states)}
        for number, state in enumerate(states):
            tensors |= _named(f"{number}/best/", state.best_weights)
        for cohort in cohorts:
            for position, state in enumerate(cohort.states):
                number = number_of[id(state)]
                weights = state.member.head.state_dict()
                tensors |= _named(f"{number}/weights/", weights)
                remembered = cohort.teacher.optimiser_state(position)
                tensors |= _named(f"{number}/teacher/optimiser/", remembered)
                if place.step:
                    tensors[f"{number}/teacher/lesson"] = cohort.teacher.lesson_state(position)
        noted = {
            "place": asdict(place),
            "members": [asdict(state.progress) for state in states],
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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}
