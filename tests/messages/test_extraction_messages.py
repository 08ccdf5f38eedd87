"""The sentences of stage one and of loading its features, word for word."""

import pytest

from clare_cache.data import load
from clare_cache.errors import ExtractError, TrainError
from clare_cache.extraction import extract_features
from clare_cache.workflow.features import extract
from tests.fake_backbone import CODE, MEAN, FakeBackbone, make_image, write_images
from tests.feature_data import image_id, make_manifest, make_store


def test_features_that_no_backbone_makes(tmp_path):
    backbones = [FakeBackbone(arrays=[MEAN]), FakeBackbone(name="other", arrays=[CODE])]
    with pytest.raises(ExtractError) as caught:
        extract_features(
            tmp_path / "store",
            {},
            root=tmp_path,
            backbones=backbones,
            features=["mean", "depth", "norm"],
        )
    assert str(caught.value) == (
        "extract: features depth, norm were asked for, the backbones make mean, code. "
        "Correct --features."
    )
    assert not (tmp_path / "store").exists()


def test_what_extract_cannot_be_asked_for(tmp_path):
    with pytest.raises(ExtractError) as caught:
        extract(
            make_manifest([]),
            tmp_path / "store",
            features=["error_map-t280", "error_map-n0", "clip_embedding"],
            from_latents=True,
        )
    assert str(caught.value) == (
        "extract: 2 faults\n"
        "  - feature error_map-n0: expected one of error_map[-tT][-nN], "
        "error_map_signed[-tT][-nN], vae_latent, clip_patch_tokens, clip_block_cls, "
        "clip_embedding, clip_layer3_map\n"
        "  - feature clip_embedding: expected error maps alone with --from-latents, found "
        "clip_embedding"
    )
    with pytest.raises(ExtractError) as caught:
        extract(make_manifest([]), tmp_path / "store", features=[], views=[], decode_in="fibres")
    assert str(caught.value) == (
        "extract: 3 faults\n"
        "  - features: expected one or more, found none\n"
        "  - views: expected one or more, found none\n"
        "  - decode_in: expected one of threads, processes, found fibres"
    )


def test_lines_of_the_ledger(tmp_path):
    images = write_images(tmp_path / "images", 5)
    (tmp_path / "images/000.png").unlink()
    (tmp_path / "images/001.png").write_bytes(b"something else")
    poison = {make_image(3)[0]: ["mean"]}
    report = extract_features(
        tmp_path / "store",
        images,
        root=tmp_path / "images",
        backbones=[FakeBackbone(poison=poison)],
        features=["mean"],
    )
    lines = sorted(report.failures, key=lambda line: line.path)
    assert [(line.path, f"{line.stage}: {line.reason}") for line in lines] == [
        ("000.png", "read: No such file or directory"),
        (
            "001.png",
            "read: the file is no longer the one in the manifest: its SHA-256 differs from "
            "image_id. Build the manifest again",
        ),
        ("003.png", "mean: 1 of 3 values are not finite"),
    ]
    assert report.n_failed == 3


def test_images_that_were_never_extracted(tmp_path):
    store = make_store(tmp_path, range(3))
    with pytest.raises(TrainError) as caught:
        load(store, make_manifest([1, 7, 2, 9]), needs=["clip_embedding", "clip_block_cls"])
    assert str(caught.value) == (
        f"store {tmp_path}: clip_embedding, clip_block_cls of view clean were asked for 4 images, "
        f"2 were never extracted, the first is {image_id(7)}. "
        "Run `clare-cache extract` with this manifest."
    )
