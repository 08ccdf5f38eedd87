"""Losses that torch does not have. Knows no head."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07


def supervised_contrastive(embedding: Tensor, labels: Tensor) -> Tensor:
    """Mean over a batch of the supervised contrastive loss, a scalar.

    `embedding` (B, E) is normalised here; `labels` (B,) are integers. A sample without another of
    its label counts as zero, as does a batch of one. Khosla et al. 2020, eq. 2, one view.
    """
    unit = F.normalize(embedding, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    partner = (labels[:, None] == labels[None, :]) & ~itself
    # The lowest finite number rather than -inf: a batch of one would otherwise have NaN gradients.
    others = similarity.masked_fill(itself, torch.finfo(unit.dtype).min)
    log_share = similarity - others.logsumexp(dim=1, keepdim=True)
    n_partners = partner.sum(dim=1).clamp(min=1)
    return -(torch.where(partner, log_share, 0).sum(dim=1) / n_partners).mean()
