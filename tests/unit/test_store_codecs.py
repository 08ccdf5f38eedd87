"""Codecs: what is lost and what is not; plain Zarr reads them; lossy ones are declared."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr

from clare_cache.data import load
from clare_cache.data.packed import unpack
from clare_cache.errors import StoreError
from clare_cache.extraction import extract_features
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, BlockData, create_store, open_store, verify
from clare_cache.store.codecs import codec_of
from clare_cache.store.metadata import array_metadata, entry_of
from clare_cache.types import ArraySpec
from tests.fake_backbone import FakeBackbone, write_images

TOKENS = ArraySpec("tokens", (16, 32), ("patch", "channel"), "float16", "made up")
LOSSLESS = ["none", "zstd", "zstd:5", "blosc", "blosc:bitshuffle"]
LOSSY = {"bitround:7": 2**-8, "bitround:4": 2**-5, "int8": 0.02}


def token_rows(n, *, seed=0):
    """Like tokens of a network: three channels fifty times the others, tokens of unequal length."""
    generator = np.random.default_rng(seed)
    channel = generator.lognormal(0, 0.6, 32)
    channel[:3] *= 50
    token = np.exp(generator.standard_normal((n, 16, 1)) / 2)
    return (generator.standard_normal((n, 16, 32)) * channel * token).astype("float16")


def make(path, codec, n=10, values=None):
    writer = create_store(path, block_rows=4)
    writer.declare(
        [ArrayEntry("clean", TOKENS, 0, {"w": 1, **codec_of(codec).declared}, codec=codec)]
    )
    writer.add_images(f"{number:064x}" for number in range(n))
    values = token_rows(n) if values is None else values
    for start in range(0, n, 4):
        rows = np.arange(start, min(start + 4, n))
        writer.write_block(
            BlockData("clean", "tokens", start // 4, rows, values[rows]), versions={}
        )
    return open_store(path), values


@pytest.mark.parametrize("codec", LOSSLESS)
def test_lossless_codecs_give_back_every_bit(tmp_path, codec):
    store, values = make(tmp_path, codec)
    handle = store["clean/tokens"]
    assert np.array_equal(handle[:], values)
    assert np.array_equal(handle.read_rows(np.array([9, 0, 3])), values[[9, 0, 3]])
    assert handle.declared == {"w": 1}
    assert verify(store) == []
    plain = zarr.open_array(str(tmp_path / "features.zarr"), path="clean/tokens", mode="r")
    assert np.array_equal(plain[:], values)
    view = xr.open_zarr(tmp_path / "features.zarr", group="clean", consolidated=False)
    assert np.array_equal(view["tokens"].to_numpy(), values)


@pytest.mark.parametrize("codec", LOSSY)
def test_lossy_codecs_stay_within_their_error_and_are_declared(tmp_path, codec):
    store, values = make(tmp_path, codec)
    handle = store["clean/tokens"]
    found = handle[:].astype("float64")
    assert handle[:].dtype == np.float16
    error = np.abs(found - values)
    if codec == "int8":
        by_channel = np.sqrt((error**2).mean((0, 1)) / (values.astype("f8") ** 2).mean((0, 1)))
        assert by_channel.max() < LOSSY[codec]  # in the quiet channels too
    else:
        assert (error <= LOSSY[codec] * np.abs(values)).all()
    assert error.max() > 0
    assert handle.declared == {"w": 1, "codec": codec}
    assert verify(store) == []


@pytest.mark.parametrize("codec", [*LOSSLESS, *LOSSY])
def test_a_block_written_again_and_a_description_read_back(tmp_path, codec):
    store, values = make(tmp_path, codec, n=8)
    entry = store["clean/tokens"].entry
    metadata = array_metadata(entry, 8)
    assert (tmp_path / "features.zarr/clean/tokens/zarr.json").read_bytes() == metadata
    assert entry_of(metadata, view="clean", name="tokens") == entry
    before = store["clean/tokens"][:]
    writer = create_store(tmp_path)
    writer.write_block(BlockData("clean", "tokens", 1, np.array([5]), values[[5]]), versions={})
    assert np.array_equal(open_store(tmp_path)["clean/tokens"][:], before)


def test_int8_is_half_the_bytes_and_plain_numbers(tmp_path):
    store, _ = make(tmp_path, "int8")
    entry = store["clean/tokens"].entry
    assert entry.stored.dtype == "int8"
    large = ArraySpec("t", (256, 1024), ("patch", "channel"), "float16", "")
    assert codec_of("int8").stored(large).row_nbytes / large.row_nbytes < 0.51
    plain = zarr.open_array(str(tmp_path / "features.zarr"), path="clean/tokens", mode="r")
    assert plain.dtype == np.int8
    assert plain.attrs["row"] == {
        "shape": [16, 32],
        "axes": ["patch", "channel"],
        "dtype": "float16",
    }
    # As docs/store-format.md says it is undone.
    row = plain[3]
    scales = row[16:].reshape(-1).view("<f2")[: 32 + 16].astype("f4")
    by_hand = row[:16] * scales[:32] * scales[32:, None] / 127
    assert np.allclose(by_hand, store["clean/tokens"][3], rtol=1e-3)


@pytest.mark.parametrize("selection", [3, slice(2, 7), (3, 5), (slice(1, 4), slice(2, 5), 7)])
def test_any_part_of_a_packed_array_can_be_asked_for(tmp_path, selection):
    handle = make(tmp_path, "int8")[0]["clean/tokens"]
    assert np.array_equal(handle[selection], handle[:][selection])


def test_torch_unpacks_to_the_same_numbers(tmp_path):
    handle = make(tmp_path, "int8")[0]["clean/tokens"]
    rows = np.array([4, 0, 9])
    found = unpack(handle.entry, torch.from_numpy(handle.read_stored(rows)))
    assert found.dtype == torch.float16
    assert np.allclose(found.numpy(), handle.read_rows(rows), rtol=1e-3, atol=0)


def test_rows_that_were_never_written_are_nan_in_int8_too(tmp_path):
    make(tmp_path, "int8", n=4)
    create_store(tmp_path).add_images([f"{99:064x}"])
    assert np.isnan(open_store(tmp_path)["clean/tokens"][4]).all()


def test_int8_of_zeros_and_of_extremes(tmp_path):
    values = np.zeros((4, 16, 32), "float16")
    values[1] = 65504
    values[2, 0, 0] = -65504
    values[3, 5, 5] = 6e-8
    found = make(tmp_path, "int8", n=4, values=values)[0]["clean/tokens"][:]
    assert np.isfinite(found).all()
    assert (found[0] == 0).all()
    assert np.allclose(found[1], 65504, rtol=0.01)
    assert np.allclose(found[2], values[2], rtol=0.01)


def test_rounding_the_largest_number_does_not_make_infinity(tmp_path):
    values = np.full((4, 16, 32), 65504, "float16")
    assert (make(tmp_path, "bitround:3", n=4, values=values)[0]["clean/tokens"][:] == 65504).all()


def test_a_store_without_codecs_in_its_description_opens(tmp_path):
    store, _ = make(tmp_path, "none")
    from clare_cache.store.schema import StoreDescription

    value = store.description.to_json()
    del value["arrays"]["clean/tokens"]["codec"]
    found = StoreDescription.from_json(json.loads(json.dumps(value)), "here")
    assert found.arrays["clean/tokens"].codec == "none"


# Extraction


def extract(path, images, root, **options):
    return extract_features(
        path, images, root=root, backbones=[FakeBackbone()], features=["mean", "grid"], **options
    )


def test_extraction_takes_a_codec_for_one_array_and_keeps_to_it(tmp_path):
    images = write_images(tmp_path / "images", 6)
    extract(tmp_path / "s", images, tmp_path / "images", codec={"grid": "int8"})
    more = write_images(tmp_path / "images", 9)
    report = extract(tmp_path / "s", more, tmp_path / "images")
    assert report.n_decoded == 3
    store = open_store(tmp_path / "s")
    assert store["clean/grid"].entry.codec == "int8"
    assert store["clean/grid"].declared["codec"] == "int8"
    assert store["clean/mean"].entry.codec == "none"
    assert store["clean/grid"].present.sum() == 9
    with pytest.raises(StoreError, match='codec: asked "bitround:3", found "int8"'):
        extract(tmp_path / "s", more, tmp_path / "images", codec={"grid": "bitround:3"})


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (
            {"depth": "zstd", "grid": "zip"},
            "codec: 2 faults\n  - depth: expected one of the arrays mean, grid\n"
            "  - grid: codec zip: expected none, zstd[:LEVEL], blosc[:bitshuffle], bitround:BITS "
            "or int8.\nCorrect --codec.",
        ),
        (
            "int8",
            "codec int8: mean is float32 of 1 axes, expected float16 of tokens × channels.",
        ),
        (
            {"grid": "bitround:10"},
            "codec bitround:10: grid is float16 of 10 bits after the point, expected bitround:1 to "
            "bitround:9.",
        ),
    ],
)
def test_codecs_that_are_refused(tmp_path, codec, message):
    images = write_images(tmp_path / "images", 2)
    with pytest.raises(StoreError) as caught:
        extract(tmp_path / "s", images, tmp_path / "images", codec=codec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "spelling", ["", "zstd:99", "zstd:", "zstd:best", "blosc:lz4", "int4", "bitround"]
)
def test_spellings_that_are_none(spelling):
    with pytest.raises(StoreError, match="expected none, zstd"):
        codec_of(spelling)


# Training data


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("codec", ["blosc", "bitround:5", "int8"])
def test_training_data_are_the_values(tmp_path, codec, resident):
    store, _ = make(tmp_path, codec)
    ids = [f"{number:064x}" for number in range(10)]
    table = {"image_id": ids, "path": ids, "label": [0, 1] * 5, "generator": "any"}
    data = load(store, Manifest.from_rows(pd.DataFrame(table)), needs=["tokens"], resident=resident)
    whole = store["clean/tokens"][:]
    found, _ = data.batch(np.array([7, 0, 3]))
    assert np.allclose(found["tokens"].numpy(), whole[[7, 0, 3]], rtol=1e-3, atol=0)
    seen = torch.cat([f["tokens"] for f, _ in data.epoch(np.random.default_rng(0), 4)])
    order = np.argsort(seen[:, 0, 0].numpy())
    expected = whole[np.argsort(whole[:, 0, 0])]
    assert np.allclose(seen.numpy()[order], expected, rtol=1e-3, atol=0)
    (tmp_path / "features.zarr/clean/tokens/c/1/0/0").unlink()
    with pytest.raises(StoreError, match="3 of 3 rows of clean/tokens that were committed"):
        load(
            open_store(tmp_path),
            Manifest.from_rows(pd.DataFrame(table).iloc[4:7]),
            needs=["tokens"],
            resident=resident,
        ).batch(np.arange(3))
