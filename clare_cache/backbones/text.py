"""CLIP's text tower for prompt learning: frozen, and differentiable in its input embeddings.

Has the shape of `heads.protocol.TextTower` without knowing heads. Positions and attention mask are
the caller's to choose, so that several prompts can share one sequence. Computes what open_clip's
own transformer does, but only where it reaches the result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clare_cache.backbones.numerics import pick_device
from clare_cache.backbones.text_block import FrozenBlock, FrozenNorm


class ClipTextTower:
    """The text half of an open_clip CLIP, in float32; `identity` is what decides its values.

    W is `width`, E is `output_width`; `logit_scale` is already exponentiated. The image half of
    `model` is not kept.
    """

    def __init__(self, model: Any, identity: Mapping[str, Any], *, device: str = "cpu") -> None:
        self.device = pick_device(device)
        self._identity = dict(identity)
        self._embeddings = model.token_embedding.weight.detach().to(self.device)
        self._positions = model.positional_embedding.detach().to(self.device)
        self._blocks = [FrozenBlock(block, self.device) for block in model.transformer.resblocks]
        self._ln_final = FrozenNorm(model.ln_final, self.device)
        self._projection = model.text_projection.detach().to(self.device)
        self.width, self.output_width = map(int, self._projection.shape)
        self.context_length = int(model.context_length)
        self.logit_scale = float(model.logit_scale.detach().exp())
        start = self.embed(self.tokenize([""])[0, :1]) + self._positions[:1]
        for block in self._blocks:
            start = block.begin(start)

    def declared(self) -> Mapping[str, Any]:
        """Everything that decides what this tower computes, JSON-able."""
        return dict(self._identity)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(n, context_length) int64 ids: start, words, end, then zeros; long texts are cut."""
        from open_clip import tokenize

        return tokenize(list(texts), context_length=self.context_length).to(self.device)

    def embed(self, ids: Tensor) -> Tensor:
        """(…, T) ids → (…, T, W) token embeddings, without position codes."""
        found: Tensor = self._embeddings[ids]
        return found

    def encode(
        self,
        embeddings: Tensor,
        read: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """(N, T, W) embeddings → (N, K, E) at token indices `read` (N, K), not normalised.

        Token 0 is the start token: its value is known, and no gradient goes there. `positions`
        (T,) index the position table (default 0..T-1); `mask` (T, T) is added to the attention
        logits (default causal). Cutting a sequence after its last read token is exact under the
        causal mask: T may be anything from 2 up to `context_length`.
        """
        n_sequences, n_tokens = embeddings.shape[:2]
        codes = self._positions[:n_tokens] if positions is None else self._positions[positions]
        if mask is None:
            mask = codes.new_full((n_tokens, n_tokens), -torch.inf).triu(1)
        # From here on without the start token, whose keys and values the blocks remember.
        tokens = (embeddings + codes)[:, 1:].flatten(0, 1)
        first = (n_tokens - 1) * torch.arange(n_sequences, device=read.device)
        rows = (read - 1 + first[:, None]).flatten()
        for block in self._blocks[:-1]:
            tokens = block(tokens, mask[1:].expand(n_sequences, 1, -1, -1))
        tokens = self._blocks[-1](tokens, mask[read][:, None], rows=rows)
        found: Tensor = self._ln_final(tokens) @ self._projection
        return found.unflatten(0, read.shape)
