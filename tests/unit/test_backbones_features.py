"""What the name of an array says."""

import pytest

from clare_cache.backbones import backbone_of
from clare_cache.backbones.features import ErrorMapName, read_error_map_name, settings_of


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("error_map", (False, None, None)),
        ("error_map-t0", (False, 0, None)),
        ("error_map-n8", (False, None, 8)),
        ("error_map-t280-n8", (False, 280, 8)),
        ("error_map_signed", (True, None, None)),
        ("error_map_signed-t200-n1", (True, 200, 1)),
    ],
)
def test_a_name_says_timestep_and_draws(name, said):
    assert read_error_map_name(name) == ErrorMapName(name, *said)
    assert backbone_of(name) == "error_map"


@pytest.mark.parametrize(
    "name",
    [
        "error_map-", "error_map-n0", "error_map-t020", "error_map-n8-t200", "error_map-t-1",
        "error_map_t200", "error_maps", "vae_latent-t200", "clip_embedding-n2", "",
    ],
)  # fmt: skip
def test_other_spellings_are_no_array(name):
    assert read_error_map_name(name) is None
    assert backbone_of(name) is None


def test_what_a_name_says_is_no_setting():
    declared = {"timestep": 280, "ensemble": 8, "seed": 1, "latent_dtype": None}
    exact = {"latent_dtype": "float32"}
    assert settings_of("clip_embedding", declared) == {"timestep": 280, "ensemble": 8, "seed": 1}
    assert settings_of("error_map", declared) == settings_of("clip_embedding", declared) | exact
    assert settings_of("error_map-t280", declared) == {"ensemble": 8, "seed": 1} | exact
    assert settings_of("error_map_signed-t280-n8", declared) == {"seed": 1} | exact
    rounded = {"latent_dtype": "float16", "dtype": "float16"}
    assert settings_of("error_map", rounded) == rounded | {"vae_dtype": "tf32"}
