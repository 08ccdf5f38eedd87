"""The networks of a diffusers folder as one checkpoint in the authors' layout, written down anew.

Names only, and the shapes that go with them: independent of the conversion under test.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
TEXT_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def in_one_file(unet, vae, text_encoder, *, open_clip: bool) -> dict[str, Tensor]:
    """One state dict; the text encoder as open_clip's (Stable Diffusion 2) or as it is (1)."""
    text = text_encoder.state_dict()
    return {
        **_unet(unet.state_dict(), unet.config.layers_per_block),
        **_vae(vae.state_dict(), len(vae.config.block_out_channels)),
        **(
            _open_clip(text, text_encoder.config.num_hidden_layers)
            if open_clip
            else {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.items()}
        ),
    }


def _unet(weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    with_attention = {k.split(".attentions")[0] for k in weights if ".attentions" in k}
    return {
        f"model.diffusion_model.{_unet_name(key, layers, with_attention)}": value
        for key, value in weights.items()
    }


def _unet_name(key: str, layers: int, with_attention: set[str]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(f"{ours}."):
            return theirs + key.removeprefix(ours)
    words = key.split(".")
    if words[0] == "mid_block":
        kind, number, rest = words[1], int(words[2]), words[3:]
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{_inner(rest)}"
    side, block, kind, number, rest = words[0], int(words[1]), words[2], int(words[3]), words[4:]
    place = block * (layers + 1)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{1 + place + layers}.0.op.{rest[-1]}"
        return f"input_blocks.{1 + place + number}.{int(kind == 'attentions')}.{_inner(rest)}"
    if kind == "upsamplers":
        after = 2 if f"up_blocks.{block}" in with_attention else 1
        return f"output_blocks.{place + layers}.{after}.conv.{rest[-1]}"
    return f"output_blocks.{place + number}.{int(kind == 'attentions')}.{_inner(rest)}"


def _inner(words: Sequence[str]) -> str:
    return ".".join([RESNET.get(words[0], words[0]), *words[1:]])


def _vae(weights: Mapping[str, Tensor], n_blocks: int) -> dict[str, Tensor]:
    found = {}
    for key, value in weights.items():
        name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for n in range(n_blocks):
            name = name.replace(f"up_blocks.{n}.", f"up.{n_blocks - 1 - n}.")
        name = name.replace("down_blocks.", "down.").replace("mid_block.resnets.0", "mid.block_1")
        name = name.replace("mid_block.resnets.1", "mid.block_2").replace(".resnets.", ".block.")
        name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
        if "mid_block.attentions.0." in name:
            before, _, rest = name.partition("mid_block.attentions.0.")
            part, _, kind = rest.rpartition(".")
            name = f"{before}mid.attn_1.{VAE_ATTENTION[part]}.{kind}"
            value = value[:, :, None, None] if value.ndim == 2 else value
        found[f"first_stage_model.{name}"] = value
    return found


def _open_clip(weights: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    prefix = "cond_stage_model.model."
    width = weights["final_layer_norm.weight"].shape[0]
    like = weights["final_layer_norm.weight"]
    found = {
        f"{prefix}token_embedding.weight": weights["embeddings.token_embedding.weight"],
        f"{prefix}positional_embedding": weights["embeddings.position_embedding.weight"],
        f"{prefix}ln_final.weight": weights["final_layer_norm.weight"],
        f"{prefix}ln_final.bias": weights["final_layer_norm.bias"],
        f"{prefix}text_projection": like.new_ones(width, width),
        f"{prefix}logit_scale": like.new_ones(()),
    }
    # Stable Diffusion 2 reads the last block but one; the file has the last one, too.
    for layer in range(n_layers + 1):
        ours = f"encoder.layers.{min(layer, n_layers - 1)}."
        theirs = f"{prefix}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for part, name in TEXT_BLOCK.items():
                found[f"{theirs}{name}.{kind}"] = weights[f"{ours}{part}.{kind}"]
            found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(
                [weights[f"{ours}self_attn.{which}_proj.{kind}"] for which in "qkv"]
            )
    return found
