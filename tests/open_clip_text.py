"""CLIP's text tower with nothing left out, for tests and benchmarks of the short one."""

from collections.abc import Sequence
from typing import Any

import torch
from open_clip import tokenize


class OpenClipText:
    """open_clip's own transformer over every token, in the shape of `heads.protocol.TextTower`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.context_length, self.width = model.positional_embedding.shape
        self.output_width = model.text_projection.shape[1]
        self.logit_scale = float(model.logit_scale.detach().exp())

    def declared(self) -> dict[str, object]:
        return {"weights": "open_clip"}

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        return tokenize(list(texts), self.context_length).to(self.model.text_projection.device)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model.token_embedding(ids)

    def encode(
        self,
        embeddings: torch.Tensor,
        read: torch.Tensor,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        n_tokens = embeddings.shape[1]
        codes = self.model.positional_embedding
        codes = codes[:n_tokens] if positions is None else codes[positions]
        mask = self.model.attn_mask[:n_tokens, :n_tokens] if mask is None else mask
        tokens = self.model.transformer(embeddings + codes, attn_mask=mask)
        ends = tokens.gather(1, read[:, :, None].expand(-1, -1, self.width))
        return self.model.ln_final(ends) @ self.model.text_projection
