"""What an extraction would add is what it then adds; nothing is written to learn it."""

import json

import pytest

from clare_cache.errors import ExtractError
from clare_cache.extraction import extract_features
from clare_cache.extraction.forecast import forecast
from clare_cache.extraction.work import LoadedBackbones
from clare_cache.store import open_store
from clare_cache.workflow.estimate import make_estimate
from clare_cache.workflow.features import backbone_spec
from tests.fake_backbone import GRID, MEAN, FakeBackbone, bytes_below, make_image, write_images

ARRAYS = {"mean": MEAN, "grid": GRID}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def extract(store, images, root, *, features=("mean", "grid"), **options):
    backbone = FakeBackbone(poison={make_image(1)[0]: ["grid"]})
    options = {"block_rows": 4} | options
    return extract_features(
        store, images, root=root, backbones=[backbone], features=features, **options
    )


def expect(store, images, **options):
    options = {"features": ["mean", "grid"], "views": ["clean"], "block_rows": 4} | options
    return forecast(
        open_store(store) if store.exists() else None,
        list(images),
        arrays=[ARRAYS[name] for name in options.pop("features")],
        **options,
    )


def counted(store):
    """Chunk and commit files of each array, and rows."""
    names = bytes_below(store) if store.exists() else {}
    return {
        key: sum(f"/{key}/c/" in name or f"commits/{key}/" in name for name in names)
        for key in ("clean/mean", "clean/grid", "flip/mean", "flip/grid")
    }


@pytest.mark.parametrize(
    ("before", "n_before", "asked"),
    [
        ({}, 0, {}),
        ({"features": ["mean"]}, 13, {}),
        ({}, 13, {"views": ["clean", "flip"]}),
        ({}, 6, {}),
        ({"views": ["flip"]}, 3, {"views": ["clean", "flip"]}),
        ({}, 13, {}),
    ],
)
def test_it_is_what_extract_then_does(store, root, before, n_before, asked):
    images = write_images(root, 13)
    if n_before:
        extract(store, dict(list(images.items())[:n_before]), root, **before)
    files = bytes_below(store) if n_before else {}
    found = expect(store, images, **asked)
    assert (bytes_below(store) if n_before else {}) == files
    had = counted(store)
    report = extract(store, images, root, **asked)
    has = counted(store)
    assert report.n_decoded == len(found.images)
    for one in found.arrays:
        assert one.n_files == has[one.key] - had[one.key]
        assert one.n_asked == 13
        spec = ARRAYS[one.key.partition("/")[2]]
        assert (one.row_nbytes, one.nbytes) == (spec.row_nbytes, one.n_todo * spec.row_nbytes)
    again = expect(store, images, **asked)
    assert [one.n_todo for one in again.arrays] == [0] * len(again.arrays)
    assert {one.key: one.n_failed for one in again.arrays}["clean/grid"] == 1
    if not asked:
        retried = expect(store, images, retry_failed=True)
        assert {one.key: one.n_todo for one in retried.arrays} == {
            "clean/mean": 0,
            "clean/grid": 1,
        }


def test_a_sample_is_measured_for_each_kind_of_want(store, root):
    images = write_images(root, 13)
    extract(store, dict(list(images.items())[:4]), root, features=["mean"])
    backbone, seen = FakeBackbone(), []
    before = bytes_below(store)
    found = make_estimate(
        open_store(store),
        images,
        root=root,
        backbones=LoadedBackbones([backbone]),
        features=["mean", "grid"],
        views=["clean"],
        device="cpu",
        n_sample=3,
        on_progress=seen.append,
    )
    assert bytes_below(store) == before
    assert [(one.features, one.n_todo, one.n_sample) for one in found.measured] == [
        (("mean", "grid"), 9, 3),
        (("grid",), 4, 3),
    ]
    assert set(backbone.wanted) == {("mean", "grid"), ("grid",)}
    assert found.seconds == pytest.approx(
        sum(one.n_todo * one.seconds_per_image for one in found.measured)
    )
    assert all(one.seconds_per_image > 0 for one in found.measured)
    assert found.eta_seconds(4) == pytest.approx(found.seconds / 4)
    assert (found.n_images, found.n_todo, found.device) == (13, 13, "cpu")
    assert {step.what for step in seen} == {"warm-up", "sample"}


def test_without_a_sample_no_image_is_opened(store, tmp_path):
    images = write_images(tmp_path / "gone", 5)
    found = make_estimate(
        None,
        images,
        root="nowhere",
        backbones=LoadedBackbones([FakeBackbone()]),
        features=["mean"],
        views=["clean"],
        device="cpu",
    )
    assert (found.seconds, found.eta_seconds(2), found.measured) == (None, None, ())


def test_a_sample_that_cannot_be_read_is_told(root, tmp_path):
    images = write_images(root, 2)
    for path in root.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ExtractError) as caught:
        make_estimate(
            None,
            images,
            root=root,
            backbones=LoadedBackbones([FakeBackbone()]),
            features=["mean"],
            views=["clean"],
            n_sample=2,
        )
    assert str(caught.value).startswith(
        "estimate: of a sample of 2 images none can be read, the first is "
    )
    assert str(caught.value).endswith("). Run `clare-cache manifest check`.")


def test_other_inputs_than_the_stores_are_told(store, root):
    images = write_images(root, 3)
    extract(store, images, root)
    found = make_estimate(
        open_store(store),
        images,
        root=root,
        backbones=LoadedBackbones([FakeBackbone(factor=3.0)]),
        features=["mean"],
        views=["clean"],
    )
    assert found.mismatches == ("clean/mean: factor: asked 3.0, found 1.0",)


def test_a_lossy_codec_is_the_stores_own_unless_another_is_asked_for(store, root):
    images = write_images(root, 3)
    extract(store, images, root, features=["mean"], codec="bitround:5")

    def mismatches(codec):
        return make_estimate(
            open_store(store),
            images,
            root=root,
            backbones=LoadedBackbones([FakeBackbone()]),
            features=["mean"],
            views=["clean"],
            codec=codec,
        ).mismatches

    assert mismatches(None) == mismatches("bitround:5") == ()
    assert mismatches("none") == ('clean/mean: codec: asked nothing, found "bitround:5"',)


def test_packed_rows_are_forecast_as_they_are_stored(tmp_path):
    found = make_estimate(
        None,
        dict(write_images(tmp_path / "images", 2)),
        root=tmp_path / "images",
        backbones=backbone_spec(
            features=["clip_patch_tokens"],
            views=["clean"],
            sd=None,
            clip="tiny",
            error_map=None,
            image_tower=None,
            device="cpu",
        ),
        features=["clip_patch_tokens"],
        views=["clean"],
        codec="int8",
    )
    (one,) = found.arrays
    n_tokens, width = 256, 64
    assert one.row_nbytes < 2 * n_tokens * width
    assert found.nbytes == 2 * one.row_nbytes


def test_the_commands(tmp_path, command):
    from clare_cache.workflow.demo import make_images

    make_images(tmp_path / "images", per_region=1)
    command("manifest", "build", "folder", "images", "-o", "m.csv", folder=tmp_path)
    asked = ["--root", "images", "--clip", "tiny", "--features", "clip_embedding"]
    asked += ["--device", "cpu"]
    done = command(
        "estimate", "m.csv", *asked, "--sample", "4", "--processes", "2", folder=tmp_path
    )
    assert done.status == 0
    lines = done.out.splitlines()
    assert "30 of 30 images to look at, " in done.out
    assert "measured on cpu with 4 images for clip_embedding in clean: " in done.out
    assert lines[-1].endswith(" with 2 workers like this")
    done = command("extract", "m.csv", "store", *asked, "--dry-run", "--json", folder=tmp_path)
    told = json.loads(done.out)
    assert done.status == 0
    assert (told["n_todo"], told["seconds"], told["arrays"][0]["n_there"]) == (30, None, 0)
    assert not (tmp_path / "store").exists()
    command("extract", "m.csv", "store", *asked, folder=tmp_path)
    done = command("extract", "m.csv", "store", *asked, "--dry-run", folder=tmp_path)
    assert "0 of 30 images to look at, 0 B in 0 files to be added" in done.out
    done = command(
        "extract", "m.csv", "store", *asked, "--geometry", "squash", "--dry-run", folder=tmp_path
    )
    assert done.status == 1
    assert (
        'the store was made from other inputs: clean/clip_embedding: geometry: asked "squash", '
        'found "center-crop"' in done.out
    )
