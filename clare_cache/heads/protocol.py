"""What stage two asks of a trainable head, and what a prompt head asks of a text tower.

Heads take tensors and give logits. They open no file, know no store, and never see an image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from clare_cache.heads.features import Shapes, read_features, shape_faults
from clare_cache.heads.options import Option


@dataclass(frozen=True)
class HeadOutput:
    """`class_logits` (B, 2) in the order [real, fake]; `embedding` (B, E) if the head has one.

    A detector with a single logit s (positive = fake) gives [0, s], so that softmax and sigmoid
    agree and `score` is s.
    """

    class_logits: Tensor
    embedding: Tensor | None = None

    @classmethod
    def from_score(cls, score: Tensor, embedding: Tensor | None = None) -> "HeadOutput":
        """The output of a detector with one logit (B,), positive = fake."""
        return cls(torch.stack([torch.zeros_like(score), score], dim=1), embedding)

    @property
    def score(self) -> Tensor:
        """(B,) log-odds of "fake": logit of fake minus logit of real."""
        return self.class_logits[:, 1] - self.class_logits[:, 0]


class TextTower(Protocol):
    """CLIP's frozen text encoder, as prompt heads see it: differentiable in its input embeddings.

    W is the width of token embeddings, E the width of the joint space, T a number of tokens.
    """

    width: int
    output_width: int
    context_length: int
    logit_scale: float
    """Already exponentiated: 100.0 for OpenAI's ViT-L/14."""

    def declared(self) -> Mapping[str, Any]:
        """Declared inputs, for fingerprints."""
        ...

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(n, context_length) int64 ids: start, words, end, then zeros."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """(…, T) ids → (…, T, W) token embeddings, without position codes."""
        ...

    def encode(
        self,
        embeddings: Tensor,
        read: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """(N, T, W) embeddings → (N, K, E), read at the K token indices `read` (N, K), after the
        final layer norm and the text projection, not normalised. 2 ≤ T ≤ context_length.

        Token 0 is the start token, whose value a tower knows: no gradient needs to reach it.
        `positions` (T,) are the indices into the position table (default 0..T-1); `mask` (T, T)
        is added to the attention logits (default causal)."""
        ...


class Head(nn.Module, ABC):
    """A light detector over cached arrays.

    `axes_of` names the arrays of its family and the axes of one row of each, which may depend on
    options; `shapes` are by these names. `reads` says which of them are read from an array of
    another name (`error_map` from `error_map-t280`), and `needs` names exactly the arrays that
    `forward` reads. `options` are the JSON-able constructor options that
    rebuild the head, together with the arrays' row `shapes` and, for prompt heads (`needs_text`),
    a text tower. A frozen text tower is never part of `state_dict()` or `parameters()`, but moves
    along in `.to()`.
    """

    family: ClassVar[str]
    """Its name in recipes; of a user's own head, where that is found: `MODULE:CLASS`."""
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    needs_text: ClassVar[bool] = False
    option_rules: ClassVar[Mapping[str, Option]] = {}
    stackable: ClassVar[bool] = False
    """Whether heads of equal options and shapes differ in nothing but the values of their tensors,
    draw no chance but through `F.dropout`, and count nothing outside of tensors: then training
    stacks them, and replays the operations of an earlier step."""
    stackable_options: ClassVar[tuple[str, ...]] = ()
    """Options that are such tensors, as buffers that are not saved."""

    options: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    reads: Mapping[str, str] = {}
    seed: int = 0

    def __init__(self, shapes: Shapes, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.shapes = {name: tuple(shapes[name]) for name in self.axes_of(options)}
        self.options = dict(options)

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        """`features[name]` is (B, *row shape), any float dtype; computed in float32 (in float64
        if the head is). Raises HeadError for absent arrays and other row shapes."""

    @abstractmethod
    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Scalar training loss for labels (B,) of 0 real, 1 fake, with its source's reduction."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The arrays that `forward` reads, in the order of `shapes`."""
        return tuple(self.reads.get(name, name) for name in self.shapes)

    @property
    def text(self) -> TextTower | None:
        """The frozen text tower of a prompt head."""
        return None

    @classmethod
    def axes_of(cls, options: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        """Array name → axes of one row, for a head with these options."""
        return cls.axes

    @classmethod
    def faults_of(cls, shapes: Shapes, options: Mapping[str, Any]) -> list[str]:
        """What speaks against building this head for rows of these shapes."""
        return shape_faults(cls.axes_of(options), shapes)

    def read(
        self, features: Mapping[str, Tensor], *, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """The needed arrays, checked, in the order of `needs` and, by default, the head's
        precision."""
        dtype = dtype or next(self.parameters()).dtype
        shapes = dict(zip(self.needs, self.shapes.values(), strict=True))
        return read_features(f"head {self.family}", features, shapes, dtype=dtype)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Every parameter that the optimiser must receive."""
        return [p for p in self.parameters() if p.requires_grad]


class BankHead(Head):
    """A head that is fitted by keeping training features, without gradients or an optimiser."""

    @abstractmethod
    def remember(self, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Fits the head to these features and labels, forgetting what it was fitted to before.
        The result depends on their order, not on how they are cut into batches."""
