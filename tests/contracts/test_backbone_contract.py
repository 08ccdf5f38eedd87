"""What every backbone owes its callers. A new one inherits `BackboneContract` in a few lines."""

import dataclasses
import json
from typing import Any, ClassVar

import numpy as np
import pytest
from open_clip import factory

from clare_cache.backbones import FEATURES, ClipConfig, ErrorMapConfig, backbone_of, load_backbones
from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import BackboneError
from clare_cache.fingerprint import fingerprint

IDS = [f"{i:064x}" for i in range(3)]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Decoded pictures of unequal sizes."""
    generator = np.random.default_rng(3)
    sizes = [(300, 260), (240, 410), (512, 512)]
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


SMALL_RESNET = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def small_resnet():
    """CLIP's ResNet in a small size, as `random:SmallResNet`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factory._MODEL_CONFIGS, "SmallResNet", SMALL_RESNET)
        yield


class BackboneContract:
    """Not collected itself: subclasses are, by their name."""

    feature: ClassVar[str]
    config: ClassVar[Any]
    size_px: ClassVar[int]
    others: ClassVar[dict[str, Any]]
    """For every option, a value other than the default."""
    without_effect: ClassVar[set[str]] = set()
    """Options for other arrays than these."""
    difference: ClassVar[float] = 1e-2
    """How much, relatively, two noise pictures differ at least in some value."""
    clip: ClassVar[str] = "tiny"
    further: ClassVar[tuple[str, ...]] = ()
    """Features asked for beside `feature`, where a backbone makes only what is asked for."""
    arrays: ClassVar[set[str]]

    @classmethod
    def load(cls, config: Any) -> Backbone:
        options = {"error_map": config} if cls.feature == "error_map" else {"clip_config": config}
        features = [cls.feature, *cls.further]
        (backbone,) = load_backbones(sd="tiny", clip=cls.clip, features=features, **options)
        return backbone

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls) -> Backbone:
        return cls.load(cls.config)

    @pytest.fixture(scope="class")
    @classmethod
    def batch(cls, backbone, pictures) -> np.ndarray:
        return np.stack([backbone.preprocess(picture) for picture in pictures])

    @pytest.fixture(scope="class")
    @classmethod
    def features(cls, backbone, batch) -> dict[str, np.ndarray]:
        return backbone(batch, IDS, [spec.name for spec in backbone.arrays])

    def test_names_are_the_published_ones(self, backbone):
        made = {spec.name for spec in backbone.arrays}
        assert made == self.arrays
        assert {backbone_of(array) for array in made} == {backbone.name}

    def test_preprocess_makes_one_size_from_any(self, batch):
        assert batch.shape == (3, self.size_px, self.size_px, 3)
        assert batch.dtype == np.uint8

    def test_shapes_dtypes_and_values_are_as_declared(self, backbone, features):
        for spec in backbone.arrays:
            assert features[spec.name].shape == (3, *spec.shape)
            assert features[spec.name].dtype == np.dtype(spec.dtype)
            assert len(spec.axes) == len(spec.shape)
            assert np.isfinite(features[spec.name]).all()

    def test_pictures_make_a_difference(self, features):
        for values in features.values():
            assert not np.allclose(values[0], values[1], rtol=self.difference)

    def test_only_wanted_arrays_come_back(self, backbone, batch, features):
        for spec in backbone.arrays:
            found = backbone(batch, IDS, ["unrelated", spec.name])
            assert list(found) == [spec.name]
            np.testing.assert_array_equal(found[spec.name], features[spec.name])
        assert backbone(batch, IDS, ["unrelated"]) == {}

    def test_a_row_does_not_depend_on_its_batch_or_order(self, backbone, batch, features):
        wanted = list(features)
        backwards = backbone(batch[::-1], IDS[::-1], wanted)
        alone = backbone(batch[1:2], IDS[1:2], wanted)
        for name, values in features.items():
            # A last digit decides now and then where a value is rounded to.
            rtol = max(1e-4, float(np.finfo(values.dtype).eps))
            tolerance = {"rtol": rtol, "atol": 1e-5 * np.abs(values).max()}
            np.testing.assert_allclose(backwards[name][::-1], values, **tolerance)
            np.testing.assert_allclose(alone[name], values[1:2], **tolerance)

    def test_declared_inputs_are_json_and_name_no_path(self, backbone):
        for spec in backbone.arrays:
            declared = backbone.declared(spec.name)
            assert declared["weights"]["init"] == "random"
            json.dumps(declared, allow_nan=False)

    def test_every_option_changes_the_declared_inputs(self, backbone):
        options = {field.name for field in dataclasses.fields(self.config)}
        assert set(self.others) | self.without_effect == options
        before = {spec.name: fingerprint(backbone.declared(spec.name)) for spec in backbone.arrays}
        for option, value in self.others.items():
            other = self.load(dataclasses.replace(self.config, **{option: value}))
            after = {name: fingerprint(other.declared(name)) for name in before}
            assert any(before[name] != after[name] for name in before), option

    def test_a_second_load_is_interchangeable(self, backbone, batch, features):
        again = self.load(self.config)
        for name, values in again(batch, IDS, list(features)).items():
            assert again.declared(name) == backbone.declared(name)
            np.testing.assert_array_equal(values, features[name])

    def test_other_arrays_are_not_declared(self, backbone):
        with pytest.raises(BackboneError, match="unrelated"):
            backbone.declared("unrelated")


class TestTinyErrorMap(BackboneContract):
    feature, config, size_px = "error_map", ErrorMapConfig(), 256
    further = ("error_map-t280-n1", "error_map_signed", "error_map_signed-n1", "vae_latent")
    arrays: ClassVar = {feature, *further}
    others: ClassVar = {
        "size_px": 128,
        "timestep": 280,
        "ensemble": 2,
        "prompt": "",
        "seed": 1,
        "dtype": "bfloat16",
        "vae_dtype": "tf32",
        "latent_dtype": "float16",
    }


class TestTinyClip(BackboneContract):
    feature, config, size_px = "clip_embedding", ClipConfig(), 224
    arrays: ClassVar = {"clip_patch_tokens", "clip_block_cls", "clip_embedding"}
    others: ClassVar = {
        "geometry": "opencv-squash",
        "normalise": "half",
        "png_through_jpeg": True,
        "tap": "block_output",
        "dtype": "bfloat16",
        "stored_dtype": "float32",
    }


class TestSmallResNetClip(BackboneContract):
    feature, config, size_px = "clip_layer3_map", ClipConfig(stored_dtype="float32"), 64
    difference = 1e-4
    clip = "random:SmallResNet"
    arrays: ClassVar = {"clip_layer3_map", "clip_embedding"}
    others: ClassVar = {
        "geometry": "center-crop-reflected",
        "normalise": "imagenet",
        "png_through_jpeg": True,
        "dtype": "bfloat16",
        "stored_dtype": "float16",
    }
    without_effect: ClassVar = {"tap"}


def test_every_feature_has_a_backbone_under_contract():
    made = [kind.arrays for kind in BackboneContract.__subclasses__()]
    assert set().union(*made) >= set(FEATURES)
