"""Heads as their papers write them, without any shortcut: the reference for the fast algebra.

Each function takes a head (or a part of one) and uses its parameters, so that outputs and
gradients can be compared; dropout is drawn in the same order.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from clare_cache.heads.adapter import Adapter
from clare_cache.heads.attention import CrossAttention, CrossAttentionTokens, MapBiasAttention
from clare_cache.heads.clare import Clare
from clare_cache.heads.fusion import FusionHead
from clare_cache.heads.lare2 import Lare2
from clare_cache.heads.prompt_tuning import PromptTuning
from clare_cache.heads.prompts import CLASS_NAMES, PromptLearner
from clare_cache.heads.protocol import Head, TextTower
from clare_cache.heads.rine import Rine


def plain_logits(
    head: Head, features: Mapping[str, Tensor], *, tower: TextTower | None = None
) -> Tensor:
    """Class logits (B, 2) of any head that has a shortcut; `tower` encodes texts instead of the
    head's own."""
    arrays = head.read(features)
    match head:
        case Clare():
            error_map, tokens, embedding, *boxes = arrays
            blocks = _blocks(head, error_map, tokens, embedding)
            blocks += [plain_regions(b, tokens, head.grid) for b in boxes]
            fused = _unit(torch.cat(blocks, dim=1))
            text = head.text_proj(_prompts(head, fused, tower))
            return head.text.logit_scale * (_unit(text) * fused[:, None]).sum(dim=2)
        case Lare2():
            return head.fc(torch.cat(_blocks(head, *arrays), dim=1))
        case PromptTuning():
            image = _unit(*arrays)
            text = _unit(_prompts(head, image, tower))
            return head.text.logit_scale * (text * image[:, None]).sum(dim=2)
        case Adapter():
            return _adapter(head, *arrays)
        case Rine():
            return _rine(head, *arrays)
    raise NotImplementedError(head.family)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


# ------------------------------------------------------------------------- refinement


def _blocks(head: FusionHead, error_map: Tensor, tokens: Tensor, embedding: Tensor) -> list[Tensor]:
    if tokens.ndim == 4:
        tokens = tokens.permute(0, 2, 3, 1).flatten(1, 2)
    weight = head.map_proj.weight[:, :, None, None]
    error = F.conv2d(F.adaptive_avg_pool2d(error_map, head.grid), weight, head.map_proj.bias)
    spatial = plain_attention_pool(head.attn_pool, error.flatten(2).transpose(1, 2), tokens)
    channels = error_map.mean(dim=(2, 3))
    for layer in head.channel_align.fc:
        channels = layer(channels)
    if head.options["channel"] == "gate":
        channels = tokens.mean(dim=1) * channels
    return [head.image_proj(embedding), spatial, channels]


def plain_attention_pool(block: torch.nn.Module, error: Tensor, tokens: Tensor) -> Tensor:
    """error (B, P, 8), tokens (B, P, W) → (B, W): all keys and values projected."""
    match block:
        case MapBiasAttention():
            all_tokens = with_mean(tokens) + block.positional_embedding
            bias = with_mean(error).transpose(1, 2)
            query = all_tokens[:, :1]
            answer = plain_attention(block.attention, query, all_tokens, bias)
        case CrossAttention():
            # Every position of the map is widened, whether it is used or not.
            x = error.transpose(1, 2)[..., None]
            for linear in block.map_proj:
                x = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
            query = with_mean(x.flatten(2).transpose(1, 2)) + block.pos_embed_q
            if not isinstance(block, CrossAttentionTokens):
                query = query[:, :1]
            all_tokens = with_mean(tokens) + block.pos_embed_kv
            answer = plain_attention(block.attention, query, all_tokens)
    return block.layer_norm(query + answer).mean(dim=1)


def plain_attention(
    block: torch.nn.Module, query: Tensor, tokens: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Vaswani et al. 2017: query (B, Q, W) over `tokens` (B, P+1, W), which include mean and
    codes."""
    q, k, v = (
        linear(x).unflatten(2, (8, -1)).transpose(1, 2)
        for linear, x in ((block.fc_q, query), (block.fc_k, tokens), (block.fc_v, tokens))
    )
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    if bias is not None:
        scores = scores + bias[:, :, None]
    share = block.dropout(scores.softmax(dim=3))
    return block.dropout(block.fc_o((share @ v).transpose(1, 2).flatten(2)))


def with_mean(x: Tensor) -> Tensor:
    """(B, P, C) → (B, P+1, C), the mean first."""
    return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)


def plain_regions(boxes: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """RoI-align of 14 × 14 bins for each box, mean over bins, then over boxes: (B, W)."""
    found = []
    for image, own in zip(tokens, boxes, strict=True):
        own = own[~own.isnan().any(dim=1)]
        if len(own) == 0:
            found.append(image.mean(dim=0))
            continue
        cells = own * own.new_tensor([grid[1], grid[0], grid[1], grid[0]])
        values = image.T.unflatten(1, grid)[None]
        bins = roi_align(values, [cells], output_size=14, sampling_ratio=2, aligned=True)
        found.append(bins.mean(dim=(2, 3)).mean(dim=0))
    return torch.stack(found)


# ---------------------------------------------------------------------------- prompts


def _prompts(head: Clare | PromptTuning, image: Tensor, tower: TextTower | None) -> Tensor:
    learner = head.prompt_learner
    condition = image if head.options["prompts"] == "cocoop" else None
    position = head.options["class_position"]
    return plain_text(learner, condition, class_position=position, tower=tower)


def plain_text(
    learner: PromptLearner,
    condition: Tensor | None,
    *,
    class_position: str,
    class_names: Sequence[str] = CLASS_NAMES,
    tower: TextTower | None = None,
) -> Tensor:
    """Zhou et al.'s formulation: 77 tokens per image and class, read at the end token. `tower`
    encodes instead of the learner's own."""
    tower, n_context = tower or learner.tower, learner.n_context
    prompts, ends = [], []
    for number, name in enumerate(class_names):
        context = learner.ctx if learner.ctx.ndim == 2 else learner.ctx[number]
        context = context[None]
        if condition is not None:
            context = context + learner.meta_net(condition)[:, None]
        ids = tower.tokenize(["photo " * n_context + f"{name}."])
        rows = tower.embed(ids).expand(len(context), -1, -1)
        start, rest = rows[:, :1], rows[:, 1 + n_context :]
        n_name = len(name.split())
        half = n_context // 2
        parts = {
            "end": [start, context, rest],
            "front": [start, rest[:, :n_name], context, rest[:, n_name:]],
            "middle": [start, context[:, :half], rest[:, :n_name], context[:, half:],
                       rest[:, n_name:]],
        }[class_position]  # fmt: skip
        prompts.append(torch.cat(parts, dim=1))
        ends.append(ids.argmax(dim=1, keepdim=True).expand(len(context), 1))
    sequences, read = torch.stack(prompts, dim=1), torch.stack(ends, dim=1)
    text = tower.encode(sequences.flatten(0, 1), read.flatten(0, 1))
    return text.unflatten(0, sequences.shape[:2])[:, :, 0]


def _adapter(head: Adapter, embedding: Tensor) -> Tensor:
    tower, narrow, wide = head.text, head.adapter.fc[0].weight, head.adapter.fc[2].weight
    ids = tower.tokenize(["a real photo.", "a fake photo."])
    text = tower.encode(tower.embed(ids), ids.argmax(dim=1)[:, None])[:, 0]
    adapted = ((embedding @ narrow.T).clamp(min=0) @ wide.T).clamp(min=0)
    ratio = head.options["ratio"]
    image = _unit(ratio * adapted + (1 - ratio) * embedding)
    return tower.logit_scale * image @ _unit(text).T


# ------------------------------------------------------------------------------- RINE


def _rine(head: Rine, tokens: Tensor) -> Tensor:
    match head.options["aggregation"]:
        case "importance":
            shares = head.alpha.exp() / head.alpha.exp().sum(dim=1, keepdim=True)
            z = head.proj2((shares * head.proj1(tokens)).sum(dim=1))
        case "mean":
            z = head.proj2(head.proj1(tokens).sum(dim=1) / tokens.shape[1])
        case "last":
            z = head.proj2(head.proj1(tokens[:, -1:])[:, 0])
        case "pyramid":
            tokens, levels = head.proj1.dropout(tokens), []
            for block in reversed(range(tokens.shape[1])):
                level = tokens[:, block] @ head.proj1.weight[block].T + head.proj1.bias[block]
                levels.insert(0, level + levels[0] if levels else level)
            z = head.proj2(torch.stack(levels, dim=1)).mean(dim=1)
    score = head.head(z)[:, 0]
    return torch.stack([torch.zeros_like(score), score], dim=1)
