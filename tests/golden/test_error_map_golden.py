"""Error maps against numbers computed by the authors' own extraction script."""

import json
import shutil

import numpy as np
import pytest
import torch

from clare_cache.backbones.config import ErrorMapConfig
from clare_cache.backbones.error_map import ErrorMapBackbone
from clare_cache.backbones.stable_diffusion import load_stable_diffusion

GOLDEN_FILES = [
    "lare-v_prediction-t200",
    "lare-v_prediction-t280",
    "lare-epsilon-t200",
    "lare-epsilon-t280",
]


def relative(found, expected) -> float:
    found = found.cpu() if isinstance(found, torch.Tensor) else found
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture(params=GOLDEN_FILES)
def golden(request, golden_dir):
    return {"name": request.param, **np.load(golden_dir / f"{request.param}.npz")}


@pytest.fixture
def backbone(golden, golden_dir, tmp_path, device) -> ErrorMapBackbone:
    """The tiny folder as it would be on a disk, with the golden file's prediction type."""
    folder = shutil.copytree(golden_dir / "tiny-sd", tmp_path / "tiny-sd")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    settings = json.loads(scheduler.read_text())
    settings["prediction_type"] = golden["name"].split("-")[1]
    scheduler.write_text(json.dumps(settings))
    config = ErrorMapConfig(timestep=int(golden["t"]), ensemble=int(golden["ensemble"]))
    parts = load_stable_diffusion(str(folder), prompt=config.prompt)
    return ErrorMapBackbone(parts, config, device=device)


def test_posterior_and_error_map_are_the_authors(golden, backbone):
    for i in range(2):
        picture = backbone.preprocess(golden[f"image_{i}"])
        mean, _ = backbone.posterior(picture[None])
        assert relative(mean, golden[f"posterior_mean_{i}"]) < 1e-5
        latents = torch.from_numpy(golden[f"latent_sample_{i}"]) * backbone.scaling_factor
        latents, noise = (
            given.to(backbone.device)
            for given in (latents, torch.from_numpy(golden[f"noise_{i}"])[None])
        )
        found = backbone.errors(latents, noise, int(golden["t"])).square().mean(dim=1)
        assert relative(found, golden[f"error_map_{i}"][None]) < 1e-5


def test_maps_are_a_function_of_picture_and_id(golden, backbone):
    pictures = np.stack([backbone.preprocess(golden[f"image_{i}"]) for i in range(2)])
    ids = ["a" * 64, "b" * 64]
    together = backbone(pictures, ids, ["error_map"])["error_map"]
    alone = backbone(pictures[1:], ids[1:], ["error_map"])["error_map"]
    assert relative(together[1:], alone) < 1e-5
    swapped = backbone(pictures, ids[::-1], ["error_map"])["error_map"]
    assert relative(together, swapped) > 0.1
