"""Gains for the `tiny` networks, so that their random weights react to pictures as trained ones do.

With default initialisation the tiny VAE's latents are nearly constant and drowned in posterior
noise, and both networks see light and shade alone. Knows the layers of diffusers' VAE and of
open_clip's vision transformer; changes numbers only.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, pad

from clare_cache.seeds import generator_for

DETAIL_GAIN = 48.0
"""Detail of single pixels is about that much weaker than light and shade in pictures."""

PATCH_DETAIL_GAIN = 16.0
"""The same for the filters of CLIP's patches, which sum over 14×14 pixels."""

POSTERIOR_LOG_VARIANCE = -12.0
"""A trained VAE is nearly certain of its latents."""


@torch.no_grad()
def spread_tiny_weights(vae: Any) -> None:
    """Scales a freshly initialised VAE, in place: latents of unit size that show fine detail."""
    second_difference = torch.tensor([-0.5, 1.0, -0.5])
    detail = torch.outer(second_difference, second_difference)
    vae.encoder.conv_in.weight[1::2] = DETAIL_GAIN * detail / 3
    channels = vae.config.latent_channels
    quant = vae.quant_conv
    quant.weight[channels:] = 0.0
    quant.bias[channels:] = POSTERIOR_LOG_VARIANCE
    means = vae.encode(_pictures()).latent_dist.mean * vae.config.scaling_factor
    centre, spread = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    quant.weight[:channels] /= spread[:, None, None, None]
    quant.bias[:channels] -= centre / vae.config.scaling_factor
    quant.bias[:channels] /= spread
    # Twice as fast on a CPU with so few channels, and a digit less exact: right for this one only.
    vae.to(memory_format=torch.channels_last)


@torch.no_grad()
def sharpen_tiny_patches(visual: Any) -> None:
    """Every second patch filter of a vision transformer, in place: less its local mean, louder."""
    filters = visual.conv1.weight[1::2]
    surroundings = avg_pool2d(pad(filters, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    visual.conv1.weight[1::2] = PATCH_DETAIL_GAIN * (filters - surroundings)


def _pictures() -> torch.Tensor:
    """Four pictures (3, 128, 128), -1..1, with about the spectrum of photographs."""
    noise = generator_for(0, "tiny", "pictures").standard_normal((4, 3, 128, 128))
    rows, columns = np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)
    falloff = 1 / (np.hypot(rows, columns) + 0.01)
    pictures = np.fft.irfft2(np.fft.rfft2(noise) * falloff)
    return torch.from_numpy(np.clip(0.4 * pictures / pictures.std(), -1, 1).astype(np.float32))
