"""Any head as a scikit-learn classifier over arrays in memory. Knows no store and no manifest."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from clare_cache.data.orders import batches_of, full_shuffle
from clare_cache.errors import TrainError, raise_faults
from clare_cache.heads import TextTower, build_head
from clare_cache.train.config import OptimiserConfig, TrainConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.numerics import numerics
from clare_cache.train.sampling import BalancedData
from clare_cache.train.score import probability, score

Arrays = Mapping[str, NDArray[np.floating]]


class ArrayRows:
    """Arrays by name, each (n, *row shape), and labels (n,) as the training loop reads them."""

    def __init__(self, arrays: Arrays, labels: NDArray[np.int64]) -> None:
        self._arrays = {name: torch.as_tensor(np.asarray(a)) for name, a in arrays.items()}
        self.labels = torch.as_tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
        """Features and labels at positions `indices`."""
        chosen = torch.from_numpy(indices)
        return {name: array[chosen] for name, array in self._arrays.items()}, self.labels[chosen]

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Every image once, in an order that `generator` draws."""
        return map(self.batch, full_shuffle(len(self), generator, batch_size))

    def once(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
        """Every image once, in order, with their positions."""
        for positions in batches_of(np.arange(len(self)), batch_size):
            yield positions, self.batch(positions)[0]


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """A head trained by `fit`, which holds out whole groups to choose its epoch and threshold.

    `family` and `**options` are those of `build_head`; `text` is the text tower of prompt heads.
    After `fit`: `head_`, `threshold_` (a probability of fake), `history_` (one record an epoch)
    and `classes_` (0 real, 1 fake).
    """

    def __init__(
        self,
        family: str = "linear",
        *,
        text: TextTower | None = None,
        optimiser: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        self.family = family
        self.text = text
        self.optimiser = optimiser
        self.train = train
        self.device = device
        self.options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that make this classifier again, the head's options among them."""
        return {**super().get_params(deep=deep), **self.options}

    def set_params(self, **params: Any) -> "HeadClassifier":
        """Changes arguments; names that are not this class's own are options of the head."""
        for name, value in params.items():
            if name in super().get_params(deep=False):
                setattr(self, name, value)
            else:
                self.options[name] = value
        return self

    def fit(self, X: Arrays, y: ArrayLike, groups: ArrayLike | None = None) -> "HeadClassifier":  # noqa: N803
        """Trains on {array: (n, *row shape)} and labels (n,) of 0 real, 1 fake.

        Images of one group (n,) are never on both sides of the split; by default each image is
        its own. Raises TrainError for labels and lengths that do not fit, HeadError as
        `build_head` does.
        """
        labels = np.asarray(y)
        of = np.arange(len(labels)) if groups is None else np.asarray(groups)
        raise_faults(TrainError, f"fit of head {self.family}", _faults(X, labels, of))
        config = TrainConfig(**(self.train or {}))
        raise_faults(
            TrainError,
            f"fit of head {self.family}: arrays do not tell who made an image",
            [
                f"{name}: expected {expected}, found {value}"
                for name, expected, value in (
                    ("validate_on", "group", config.validate_on),
                    ("sampling", "all or class", config.sampling),
                )
                if "generator" in value
            ],
            advice="Train from a store and a manifest for that.",
        )
        shapes = {name: tuple(np.shape(array)[1:]) for name, array in X.items()}
        head = build_head(
            self.family, shapes=shapes, text=self.text, seed=config.seed, **self.options
        )
        n_folds = max(round(1 / config.validation_fraction), 2)
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=config.seed)
        parts = next(folds.split(np.zeros(len(labels)), labels, of))
        train, validation = (
            ArrayRows({n: np.asarray(X[n])[part] for n in head.needs}, labels[part].astype(int))
            for part in parts
        )
        member = Member(
            self.family, head, OptimiserConfig(**(self.optimiser or {})), seed=config.seed
        )
        shown = train if config.sampling == "all" else BalancedData(train, config.sampling)
        with numerics(config.precision, deterministic=config.deterministic, device=self.device):
            trained, lost = train_members(
                [member],
                shown,
                validation,
                epochs=config.epochs,
                batch_size=config.batch_size,
                seed=config.seed,
                select=config.select,
                device=self.device,
            )
        raise_faults(TrainError, f"fit of head {self.family}", list(lost.values()),
                     advice="Lower its learning rate.")  # fmt: skip
        self.head_, self.threshold_ = trained[0].head, trained[0].threshold
        self.history_ = trained[0].history
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, X: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """(n,) log-odds of fake."""
        check_is_fitted(self)
        arrays = {name: np.asarray(X[name]) for name in self.head_.needs if name in X}
        n_images = min((len(array) for array in arrays.values()), default=1)
        rows = ArrayRows(arrays, np.zeros(n_images, np.int64))
        return score([self.head_], rows, device=self.device)[0]

    def predict_proba(self, X: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """(n, 2) probabilities of real and fake."""
        fake = probability(self.decision_function(X))
        return np.stack([1 - fake, fake], axis=1)

    def predict(self, X: Arrays) -> NDArray[np.int64]:  # noqa: N803
        """(n,) labels: fake where its probability is above `threshold_`."""
        return (self.predict_proba(X)[:, 1] > self.threshold_).astype(np.int64)


def _faults(arrays: Arrays, labels: NDArray[Any], groups: NDArray[Any]) -> list[str]:
    faults = [
        f"{name}: expected {len(labels)} images, as there are labels, found {len(values)}"
        for name, values in {**arrays, "groups": groups}.items()
        if len(values) != len(labels)
    ]
    found = sorted(set(labels.tolist()))
    if found != [0, 1]:
        faults.append(f"labels: expected 0 (real) and 1 (fake), found {found}")
    return faults
