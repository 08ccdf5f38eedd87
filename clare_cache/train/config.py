"""Settings of training as data, checked when made. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Selection = Literal["val_auc", "val_ap", "val_accuracy", "val_loss", "last"]
Sampling = Literal["all", "class", "generator"]
Precision = Literal["float32", "tf32", "bfloat16"]


class OptimiserConfig(BaseModel):
    """How one head is optimised. The defaults are RINE's: Adam, 1e-3, constant."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """SGD only."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    update_lr: Literal["epoch", "step"] = "epoch"
    """How often the rate changes. Once an epoch, as in CoOp: `warmup_lr` for `warmup_epochs`, then
    a cosine that is never finished. Every step: a line from `warmup_lr` to `lr`, then a cosine
    that ends at 0."""
    step_epochs: int = Field(default=5, ge=1)
    """`step` only: epochs between two steps."""
    step_factor: float = Field(default=0.1, gt=0, le=1)
    """`step` only: what the rate is multiplied by at each."""
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_lr: float = Field(default=1e-5, gt=0)
    early_stopping: Literal["none", "ufd"] = "none"
    """UFD's rule: see `train.stopping`."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of each label that is moved to the other class."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of weights that is validated and kept; none: the weights."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Upper bound of the gradient's L2 norm over all parameters of the head."""


class TrainConfig(BaseModel):
    """One pass over the data for all heads."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=2)
    seed: int = Field(default=0, ge=0)
    """Decides the data order, every head's initial weights and its dropout."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training groups held out when the manifest has no `val` split."""
    validate_on: Literal["group", "held-out-generator"] = "group"
    """Whether validation has groups not trained on, or also fakes of generators not trained on."""
    sampling: Sampling = "all"
    """Every image once an epoch; or as many, balanced by class, or by class and generator."""
    precision: Precision = "float32"
    """Of matrix products on a GPU."""
    deterministic: bool = False
    """Whether an operation without a deterministic kernel is an error."""
    select: Selection = "val_auc"
    """What decides the epoch that is kept."""
