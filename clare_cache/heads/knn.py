"""The nearest real and fake embeddings decide: Ojha et al. 2023 (UniversalFakeDetect).

The authors released no code for this detector. Nothing is trained: fitting keeps the training
embeddings, and the search over them is exact, in blocks, within a stated memory.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clare_cache.errors import HeadError, raise_faults
from clare_cache.heads.features import Shapes
from clare_cache.heads.options import Option, choice, count
from clare_cache.heads.protocol import BankHead, HeadOutput
from clare_cache.types import FAKE, REAL

QUERY_ROWS = 1024
MIB = 2**20


def _whole(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


_bank_rows = Option(0, lambda value: _whole(value, 0), "a whole number from 0")


class Knn(BankHead):
    """score = mean cosine to the k nearest fake embeddings − mean to the k nearest real ones.

    That is a difference of cosine distances, in -2..2, with 0 where the paper's rule for k = 1
    changes sides (a tie is real). `class_logits` carry this score, `vote` the majority among the
    k nearest; decision 8 says why. The banks `real` and `fake` (n, W) hold unit vectors rounded to
    `bank_dtype`. Beside its inputs a search takes at most `search_mib` MiB, whatever the number
    of queries and of bank rows. `n_real` and `n_fake` are the sizes of the banks; `remember`
    sets them.
    """

    family = "knn"
    axes = {"clip_embedding": ("channel",)}  # noqa: RUF012
    option_rules = {  # noqa: RUF012
        "k": Option(1, lambda value: _whole(value, 1) and value % 2, "an odd number from 1"),
        "bank_dtype": choice("float16", "float32"),
        "search_mib": count(256),
        "n_real": _bank_rows,
        "n_fake": _bank_rows,
    }
    real: Tensor
    fake: Tensor

    def __init__(
        self,
        shapes: Shapes,
        *,
        k: int,
        bank_dtype: str,
        search_mib: int,
        n_real: int,
        n_fake: int,
    ) -> None:
        super().__init__(shapes, {
            "k": k,
            "bank_dtype": bank_dtype,
            "search_mib": search_mib,
            "n_real": n_real,
            "n_fake": n_fake,
        })  # fmt: skip
        width = self.shapes["clip_embedding"][0]
        for name, n_rows in (("real", n_real), ("fake", n_fake)):
            # NaN until a file or `remember` fills them, so that nothing can be mistaken for them.
            empty = torch.full((n_rows, width), torch.nan, dtype=getattr(torch, bank_dtype))
            self.register_buffer(name, empty)

    @torch.no_grad()
    def remember(self, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Makes the banks of these images' embeddings, in this order, in place of the old ones.

        Raises HeadError when there are fewer than k real or fake ones; the head is then as before.
        """
        parts: dict[int, list[Tensor]] = {REAL: [self.real[:0]], FAKE: [self.fake[:0]]}
        for features, labels in batches:
            unit = self._unit(features).to(self.real.dtype)
            for label, kept in parts.items():
                # Numbers rather than a mask: the host need not ask a GPU how many there are.
                chosen = (labels == label).nonzero().flatten()
                chosen = chosen.to(unit.device, non_blocking=True)
                kept.append(unit[chosen].to(self.real.device, non_blocking=True))
        real, fake = (torch.cat(parts[label]) for label in (REAL, FAKE))
        self._check_sizes(len(real), len(fake))
        self.real, self.fake = real, fake
        self.options |= {"n_real": len(real), "n_fake": len(fake)}

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        real, fake = self._search(features)
        return HeadOutput.from_score(fake.mean(dim=1) - real.mean(dim=1))

    @torch.no_grad()
    def vote(self, features: Mapping[str, Tensor]) -> Tensor:
        """(B,) int64, how many of the k nearest of both banks together are fake.

        More than k / 2 means fake. A real and a fake embedding at the same distance count as the
        real one being nearer.
        """
        real, fake = self._search(features)
        # The j-th nearest fake is among the k nearest of all when j fakes and the reals that are
        # at least as near leave it a place.
        n_nearer = torch.arange(fake.shape[1], device=fake.device) + (
            real[:, None, :] >= fake[:, :, None]
        ).sum(dim=2)
        return (n_nearer < self.options["k"]).sum(dim=1)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Binary cross-entropy, for comparison with other heads: nothing is trained by it."""
        return F.binary_cross_entropy_with_logits(output.score, labels.to(output.score.dtype))

    def _search(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cosines (B, k) to the k nearest of each bank, largest first."""
        self._check_sizes(len(self.real), len(self.fake))
        queries = self._unit(features)
        limit = self.options["search_mib"] * MIB
        real, fake = (
            torch.cat([
                nearest(rows, bank, k=self.options["k"], limit_nbytes=limit)
                for rows in queries.split(QUERY_ROWS)
            ])
            for bank in (self.real, self.fake)
        )  # fmt: skip
        return real, fake

    def _unit(self, features: Mapping[str, Tensor]) -> Tensor:
        dtype = torch.float64 if self.real.dtype == torch.float64 else torch.float32
        (embedding,) = self.read(features, dtype=dtype)
        return F.normalize(embedding, dim=1)

    def _check_sizes(self, n_real: int, n_fake: int) -> None:
        k = self.options["k"]
        faults = [
            f"{name} bank: expected at least {k} embeddings for k={k}, found {size}"
            for name, size in (("real", n_real), ("fake", n_fake))
            if size < k
        ]
        advice = "Fit it on training images of both classes, or lower k."
        raise_faults(HeadError, "head knn", faults, advice=advice)


def nearest(queries: Tensor, bank: Tensor, *, k: int, limit_nbytes: int) -> Tensor:
    """The k largest products (B, k) of each query (B, W) with any bank row (n, W), descending.

    Exact: the bank is gone through in blocks, each as large as `limit_nbytes` allows for the
    block in the queries' precision and its products together.
    """
    per_row = queries.element_size() * (queries.shape[0] + queries.shape[1])
    best = queries.new_empty(len(queries), 0)
    for block in bank.split(max(limit_nbytes // per_row, 1)):
        products = queries @ block.to(queries.dtype).T
        found = products.topk(min(k, len(block)), dim=1).values
        best = torch.cat([best, found], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1).values
    return best
