"""Backbones from what a store declares: also of a store that holds maps of both latents."""

import pytest

from clare_cache.backbones import ClipConfig, ErrorMapConfig, load_backbones
from clare_cache.workflow.features import rebuild_backbones


def declared_by(backbones):
    return {
        spec.name: {"declared": dict(backbone.declared(spec.name)), "source": backbone.source}
        for backbone in backbones
        for spec in backbone.arrays
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_array_is_declared_as_it_was(dtype):
    common = {"prompt": "", "seed": 4, "size_px": 64, "dtype": dtype}
    pictures = load_backbones(
        sd="tiny",
        clip="tiny",
        features=["error_map", "error_map-t280-n1", "vae_latent", "clip_embedding"],
        error_map=ErrorMapConfig(timestep=100, ensemble=2, **common),
        clip_config=ClipConfig(geometry="opencv-squash", normalise="half", png_through_jpeg=True),
    )
    # As `--from-latents` makes them, here with the VAE's arithmetic of another run.
    later = load_backbones(
        sd="tiny",
        clip=None,
        features=["error_map-t50", "error_map_signed-t50-n3"],
        error_map=ErrorMapConfig(
            timestep=100, ensemble=7, latent_dtype="float16", vae_dtype="tf32", **common
        ),
        from_latents=True,
    )
    known = declared_by(pictures)
    known |= {n: v for n, v in declared_by(later).items() if n != "vae_latent"}
    found = rebuild_backbones(known, device="cpu")
    assert declared_by(found).keys() == known.keys()
    assert declared_by(found) == known
    assert len(found) == 3
    (alone,) = rebuild_backbones({"error_map-t50": known["error_map-t50"]}, device="cpu")
    assert declared_by([alone]) == {"error_map-t50": known["error_map-t50"]}
