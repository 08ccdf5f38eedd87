"""CLIP's image tower: tokens or feature map and the embedding of a picture, in one pass.

Reads the tower through forward hooks that live as long as one call; the network itself is never
altered. Knows nothing of weights files, and nothing of what heads do with the tensors.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clare_cache.backbones.config import ClipConfig
from clare_cache.backbones.numerics import (
    float32_products,
    full_memory,
    largest_batch,
    pick_device,
    torch_dtype,
)
from clare_cache.backbones.protocol import PictureBatch
from clare_cache.backbones.stopwatch import Stopwatch
from clare_cache.backbones.upload import Upload, on_device
from clare_cache.errors import BackboneError
from clare_cache.images import Preparation, decoder_declared
from clare_cache.types import ArraySpec, ImageId

NORMALISE = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of red, green and blue where they are not the model's."""


class ClipBackbone:
    """Pictures → `clip_embedding` (joint_channel) and, of a vision transformer,
    `clip_patch_tokens` (patch, channel) and `clip_block_cls` (block, channel); of a ResNet,
    `clip_layer3_map` (map_channel, map_row, map_column). In the stored dtype.

    `visual` is an open_clip image tower in float32, frozen; `mean` and `std` normalise pixels of
    0..1; `identity` is everything else that decides its values, JSON-able. Source of the
    definitions: CLaRE (patch tokens), RINE (block class tokens), UniversalFakeDetect (embedding),
    LaRE² (ResNet).
    """

    name = "clip"

    def __init__(
        self,
        visual: Any,
        config: ClipConfig,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        identity: Mapping[str, Any],
        source: str,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.source = source
        self.device = pick_device(device)
        self._stopwatch = Stopwatch(self.device)
        self.take_seconds = self._stopwatch.take
        self.upload = Upload(self.device)
        self.largest_batch = largest_batch(self.device)
        self._visual = visual.to(self.device)
        mean, std = NORMALISE.get(config.normalise, (mean, std))
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)
        size = visual.image_size
        self._size_px = int(size if isinstance(size, int) else size[0])
        self.preprocess = Preparation(config.geometry, self._size_px, config.png_through_jpeg)
        self._identity = {**identity, "mean": list(mean), "std": list(std)}
        describe = _describe_transformer if hasattr(visual, "transformer") else _describe_resnet
        self.arrays: tuple[ArraySpec, ...] = describe(visual, config.stored_dtype)

    def declared(self, array: str) -> Mapping[str, Any]:
        """Everything that decides the values of `array`, and nothing that does not."""
        quantities = {spec.name: spec.meaning for spec in self.arrays}
        if array not in quantities:
            made = ", ".join(quantities)
            raise BackboneError(f"array {array}: expected one of {made}, found another name.")
        return {
            "quantity": quantities[array],
            "tap": self.config.tap if array == "clip_block_cls" else None,
            "decode": decoder_declared(),
            "geometry": self.config.geometry,
            "normalise": None if self.config.normalise == "model" else self.config.normalise,
            "png_through_jpeg": self.config.png_through_jpeg or None,
            "size_px": self._size_px,
            "dtype": self.config.dtype,
            "stored_dtype": self.config.stored_dtype,
            **self._identity,
        }

    def __call__(
        self, batch: PictureBatch, image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """(B, size, size, 3) → the wanted arrays, each (B, *shape), all from one forward pass."""
        with full_memory():
            features = self.features_from(self._normalise(batch), wanted)
            return {
                spec.name: features[spec.name].cpu().numpy()
                for spec in self.arrays
                if spec.name in features
            }

    @torch.inference_mode()
    def features_from(self, pixels: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """(B, 3, size, size) normalised pixels → the wanted arrays, in the stored dtype."""
        asked = {spec.name for spec in self.arrays}.intersection(wanted)
        if not asked:
            return {}
        features: dict[str, Tensor] = {}
        class_tokens: list[Tensor] = []

        def keep_class_token(module: nn.Module, inputs: Any, output: Tensor) -> None:
            class_tokens.append(self._stored(output[:, 0]))

        def keep_patch_tokens(module: nn.Module, inputs: Any, output: Tensor) -> None:
            features["clip_patch_tokens"] = self._stored(output[:, 1:])

        def keep_map(module: nn.Module, inputs: Any, output: Tensor) -> None:
            features["clip_layer3_map"] = self._stored(output)

        with ExitStack() as hooks:
            if "clip_block_cls" in asked:
                for block in self._visual.transformer.resblocks:
                    tapped = block.ln_2 if self.config.tap == "mlp_input" else block
                    hooks.callback(tapped.register_forward_hook(keep_class_token).remove)
            if "clip_patch_tokens" in asked:
                last = self._visual.transformer.resblocks[-1]
                hooks.callback(last.register_forward_hook(keep_patch_tokens).remove)
            if "clip_layer3_map" in asked:
                hooks.callback(self._visual.layer3.register_forward_hook(keep_map).remove)
            arithmetic = float32_products(self.device, self.config.dtype)
            with self._stopwatch.measure("clip"), arithmetic:
                embedding = self._visual(pixels.to(self.device, torch_dtype(self.config.dtype)))
        if class_tokens:
            features["clip_block_cls"] = torch.stack(class_tokens, dim=1)
        if "clip_embedding" in asked:
            features["clip_embedding"] = self._stored(embedding)
        return features

    def _normalise(self, batch: PictureBatch) -> Tensor:
        pixels = on_device(batch, self.device)
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def _stored(self, values: Tensor) -> Tensor:
        # A copy, not a view: a view would keep all tokens of every block alive.
        return values.to(torch_dtype(self.config.stored_dtype), copy=True)


def _describe_transformer(visual: Any, dtype: str) -> tuple[ArraySpec, ...]:
    n_patches = visual.grid_size[0] * visual.grid_size[1]
    width = visual.transformer.width
    return (
        ArraySpec(
            "clip_patch_tokens",
            (n_patches, width),
            ("patch", "channel"),
            dtype,
            "last block's patch tokens, before the final layer norm, row-major",
        ),
        ArraySpec(
            "clip_block_cls",
            (visual.transformer.layers, width),
            ("block", "channel"),
            dtype,
            "class token of every block, first block first",
        ),
        ArraySpec(
            "clip_embedding",
            (visual.output_dim,),
            ("joint_channel",),
            dtype,
            "projected class token, not normalised",
        ),
    )


def _describe_resnet(visual: Any, dtype: str) -> tuple[ArraySpec, ...]:
    side = visual.image_size // 16
    return (
        ArraySpec(
            "clip_layer3_map",
            (visual.layer3[-1].conv3.out_channels, side, side),
            ("map_channel", "map_row", "map_column"),
            dtype,
            "output of the third residual stage",
        ),
        ArraySpec(
            "clip_embedding",
            (visual.output_dim,),
            ("joint_channel",),
            dtype,
            "attention pool's output, not normalised",
        ),
    )
