"""A text tower without a backbone, for tests of prompt heads."""

from collections.abc import Sequence

import torch


class ReferenceTower(torch.nn.Module):
    """A text tower as heads see one (`heads.protocol.TextTower`), in the plainest torch there is.

    Random weights, a handful of words, and none of the fused attention kernels.
    """

    WORDS = ("<pad>", "real", "fake", "deep", "a", "photo", "of", ".", "<start>", "<end>")

    def __init__(
        self, *, width: int = 12, output_width: int = 10, context_length: int = 77
    ) -> None:
        super().__init__()
        self.width, self.output_width, self.context_length = width, output_width, context_length
        self.logit_scale, self.n_heads = 14.0, 3
        generator = torch.Generator().manual_seed(11)
        for name, shape in (
            ("token_embedding", (len(self.WORDS), width)), ("position", (context_length, width)),
            ("qkv_0", (3 * width, width)), ("out_0", (width, width)),
            ("up_0", (4 * width, width)), ("down_0", (width, 4 * width)),
            ("qkv_1", (3 * width, width)), ("out_1", (width, width)),
            ("up_1", (4 * width, width)), ("down_1", (width, 4 * width)),
            ("projection", (output_width, width)),
        ):  # fmt: skip
            # As large as in trained towers, so that every token matters.
            weight = torch.randn(shape, generator=generator) * 1.5 * shape[1] ** -0.5
            self.register_buffer(name, weight)

    def declared(self) -> dict[str, object]:
        return {"weights": "reference", "width": self.width, "output_width": self.output_width}

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            words = ["<start>", *text.replace(".", " . ").split(), "<end>"]
            row[: len(words)] = torch.tensor([self.WORDS.index(word) for word in words])
        return ids

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.token_embedding[ids]

    def encode(
        self,
        embeddings: torch.Tensor,
        read: torch.Tensor,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        n_tokens = embeddings.shape[1]
        positions = torch.arange(n_tokens) if positions is None else positions
        if mask is None:
            mask = torch.full((n_tokens, n_tokens), -torch.inf, dtype=embeddings.dtype).triu(1)
        x = embeddings + self.position[positions]
        for layer in ("0", "1"):
            parts = self._norm(x) @ self.get_buffer(f"qkv_{layer}").T
            q, k, v = parts.unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
            share = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5 + mask).softmax(3)
            x = x + (share @ v).transpose(1, 2).flatten(2) @ self.get_buffer(f"out_{layer}").T
            up = self._norm(x) @ self.get_buffer(f"up_{layer}").T
            x = x + (up * torch.sigmoid(1.702 * up)) @ self.get_buffer(f"down_{layer}").T
        ends = x.gather(1, read[:, :, None].expand(-1, -1, self.width))
        return self._norm(ends) @ self.projection.T

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (self.width,))
