"""CLIP's text tower for prompt learning: frozen, and differentiable in its input embeddings.

Has the shape of `heads.protocol.TextTower` without knowing heads. Positions and attention mask are
the caller's to choose, so that several prompts can share one sequence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clare_cache.backbones.numerics import pick_device


class ClipTextTower:
    """The text half of an open_clip CLIP, in float32; `identity` is what decides its values.

    W is `width`, E is `output_width`; `logit_scale` is already exponentiated. The image half of
    `model` is not kept.
    """

    def __init__(self, model: Any, identity: Mapping[str, Any], *, device: str = "cpu") -> None:
        self.device = pick_device(device)
        self._identity = dict(identity)
        self._transformer = model.transformer.to(self.device)
        self._token_embedding: nn.Embedding = model.token_embedding.to(self.device)
        self._ln_final = model.ln_final.to(self.device)
        self._positions = model.positional_embedding.detach().to(self.device)
        self._projection = model.text_projection.detach().to(self.device)
        self._causal_mask = model.attn_mask.to(self.device)
        self.width = self._token_embedding.embedding_dim
        self.output_width = int(self._projection.shape[1])
        self.context_length = int(model.context_length)
        self.logit_scale = float(model.logit_scale.detach().exp())

    def declared(self) -> Mapping[str, Any]:
        """Everything that decides what this tower computes, JSON-able."""
        return dict(self._identity)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(n, context_length) int64 ids: start, words, end, then zeros; long texts are cut."""
        from open_clip import tokenize

        return tokenize(list(texts), context_length=self.context_length).to(self.device)

    def embed(self, ids: Tensor) -> Tensor:
        """(…, T) ids → (…, T, W) token embeddings, without position codes."""
        return self._token_embedding(ids)

    def encode(
        self,
        embeddings: Tensor,
        read: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """(N, T, W) embeddings → (N, K, E) at token indices `read` (N, K), not normalised.

        `positions` (T,) index the position table (default 0..T-1); `mask` (T, T) is added to the
        attention logits (default causal). Cutting a sequence after its last read token is exact
        under the causal mask: T may be anything up to `context_length`.
        """
        n_tokens = embeddings.shape[1]
        codes = self._positions[:n_tokens] if positions is None else self._positions[positions]
        if mask is None:
            mask = self._causal_mask[:n_tokens, :n_tokens]
        tokens = self._transformer(embeddings + codes, attn_mask=mask)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return self._ln_final(tokens[rows, read]) @ self._projection
