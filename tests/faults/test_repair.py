"""Any byte of a store may be lost: `verify` finds it, `repair` puts it back."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.extraction import extract_features
from clare_cache.manifest import Manifest
from clare_cache.store import verify
from clare_cache.store.prune import prune
from clare_cache.store.seal import unseal
from clare_cache.workflow.repair import repair
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images
from tests.miniatures.trees import put_tar

BLOCK_ROWS = 4


def backbones():
    return [FakeBackbone(poison={make_image(1)[0]: ["grid"]})]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two additions, two views, three arrays and a ledger; its images and manifest."""
    folder = tmp_path_factory.mktemp("made")
    images = write_images(folder / "images", 13)
    (folder / "images/004.png").write_bytes(b"no picture")
    for part in (dict(list(images.items())[:9]), images):
        extract_features(
            folder / "store",
            part,
            root=folder / "images",
            backbones=backbones(),
            features=["mean", "grid", "code"],
            views=["clean", "flip"],
            block_rows=BLOCK_ROWS,
        )
    rows = [{"image_id": i, "path": p[0], "label": 0} for i, p in images.items()]
    manifests = [Manifest.from_rows(pd.DataFrame(part)) for part in (rows[:9], rows)]
    return folder / "store", folder / "images", manifests


def mend(store, made, **options):
    options = {"manifests": made[2]} | options
    return repair(store, load_backbones=lambda entries: backbones(), root=made[1], **options)


def damage(path: Path, generator: random.Random) -> str:
    """Flip one bit or cut the file short, anywhere."""
    data = bytearray(path.read_bytes())
    place = generator.randrange(len(data))
    if generator.random() < 0.5:
        data[place] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        return f"bit flipped in byte {place} of {path.name}"
    path.write_bytes(data[:place])
    return f"{path.name} cut to {place} bytes"


def without_times(record: bytes) -> dict:
    value = json.loads(record)
    return {k: v for k, v in value.items() if k not in ("seconds", "finished_at", "checksum")}


def assert_put_back(store: Path, before: dict[str, bytes], damaged: str) -> None:
    """Every file is as it was; a commit record that was damaged has the time of its making."""
    after = bytes_below(store)
    assert after.keys() == before.keys()
    for name, data in before.items():
        if name == damaged and name.startswith("commits/"):
            assert without_times(after[name]) == without_times(data)
        else:
            assert after[name] == data, name


@pytest.mark.parametrize(
    "numbers",
    [
        range(60),
        *(pytest.param(range(n, n + 110), marks=pytest.mark.slow) for n in range(60, 500, 110)),
    ],
    ids=lambda numbers: f"{numbers.start}_to_{numbers.stop - 1}",
)
def test_every_damage_is_found_and_mended(made, tmp_path, numbers):
    store = tmp_path / "store"
    shutil.copytree(made[0], store)
    before = bytes_below(store)
    for number in numbers:
        generator = random.Random(number)
        name = generator.choice(sorted(before))
        what = damage(store / name, generator)
        faults = verify(store)
        assert faults, what
        assert {fault.where for fault in faults} <= {name, name.removeprefix("features.zarr/")}, (
            what
        )
        report = mend(store, made)
        assert report.left == (), what
        assert report.reasons == (), what
        assert_put_back(store, before, name)
        if name.startswith("commits/"):
            (store / name).write_bytes(before[name])


@pytest.fixture
def store(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "store"))


def chunk_of(store, key, number=0):
    return next((store / f"features.zarr/{key}/c/{number}").rglob("0"))


def test_a_healthy_store_is_not_touched_and_no_network_is_loaded(made, store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    report = repair(store, load_backbones=None, root="nowhere")
    assert (report.found, report.left, report.reasons, report.n_images) == ((), (), (), 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_the_rows_of_damaged_chunks_are_looked_at(made, store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    chunk = chunk_of(store, "clean/mean", 1)
    chunk.write_bytes(b"")
    backbone = FakeBackbone()
    report = repair(store, load_backbones=lambda entries: [backbone], root=made[1])
    assert report.n_images == len(set(backbone.images_seen)) <= BLOCK_ROWS
    assert set(backbone.wanted) == {("mean",)}
    after = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert [path for path in before if after[path] != before[path]] == [chunk]
    assert bytes_below(store) == bytes_below(made[0])


def test_every_kind_of_damage_at_once(made, store):
    before = bytes_below(store)
    for name in (
        "store.json",
        "index.parquet",
        "features.zarr/flip/zarr.json",
        "commits/clean/mean/1.json",
        "features.zarr/clean/grid/c/0/0/0/0",
        "features.zarr/flip/mean/c/3/0",
    ):
        data = (store / name).read_bytes()
        (store / name).write_bytes(data[: len(data) // 2])
    (store / "features.zarr/clean/code/c/2/0").unlink()
    (store / "commits/clean/mean/.9.partial.json").write_text("{")
    report = mend(store, made)
    assert report.left == ()
    assert len(report.found) >= 8
    for name in (name for name in before if name != "commits/clean/mean/1.json"):
        assert (store / name).read_bytes() == before[name], name
    assert not list(store.rglob("*.partial*"))


def test_orphans_go_and_files_of_others_stay(made, store):
    (store / "README.md").write_text("ours")
    (store / "commits/clean/mean/notes.txt").write_text("no record")
    record = store / "commits/flip/code/0.json"
    record.unlink()
    orphan = chunk_of(store, "flip/code")
    report = mend(store, made)
    assert {fault.where for fault in report.found} == {
        "commits/clean/mean/notes.txt",
        "ledger/flip/code/0.json",
        orphan.relative_to(store).as_posix(),
    }
    assert report.left == ()
    assert not orphan.exists()
    assert (store / "README.md").read_text() == "ours"


def test_orphans_stay_while_somebody_commits_blocks(made, store):
    """They may be the chunks of the next block."""
    record = (store / "commits/flip/code/0.json").read_bytes()
    (store / "commits/flip/code/0.json").unlink()
    (store / "ledger/flip/code/0.json").unlink()
    orphan = chunk_of(store, "flip/code")

    def commit(step):
        (store / "commits/flip/code/0.json").write_bytes(record)

    report = mend(store, made, on_progress=commit)
    assert report.reasons == (
        "orphans: blocks are being committed; call again when that run is done",
    )
    assert [fault.where for fault in report.left] == [orphan.relative_to(store).as_posix()]
    assert orphan.exists()


def test_a_dry_run_changes_nothing(made, store):
    chunk_of(store, "clean/mean").write_bytes(b"")
    before = bytes_below(store)
    report = mend(store, made, dry_run=True)
    assert report.left == report.found == tuple(verify(store))
    assert bytes_below(store) == before


def test_an_image_that_is_gone_leaves_its_block_as_it_is(made, store, tmp_path):
    chunk = chunk_of(store, "clean/mean")
    chunk.write_bytes(b"torn")
    root = Path(shutil.copytree(made[1], tmp_path / "images"))
    for path in root.iterdir():
        path.write_bytes(b"another file")
    report = repair(store, load_backbones=lambda entries: backbones(), root=root)
    assert [fault.kind for fault in report.left] == ["altered chunk"]
    (reason,) = report.reasons
    assert reason.startswith("block 0 of clean/mean: 3 of 3 images cannot be looked at again, ")
    assert chunk.read_bytes() == b"torn"


def test_rows_that_no_request_names_need_a_manifest(made, store):
    shutil.rmtree(store / "requests")
    chunk_of(store, "clean/mean").write_bytes(b"torn")
    report = mend(store, made, manifests=[])
    assert report.reasons == (
        "block 0: 3 of 3 images are named by no request; name the manifest with --manifest",
    )
    assert mend(store, made).left == ()


def test_other_weights_are_refused(made, store):
    chunk_of(store, "clean/mean").write_bytes(b"torn")
    with pytest.raises(StoreMismatch) as caught:
        repair(store, load_backbones=lambda entries: [FakeBackbone(factor=2.0)], root=made[1])
    assert str(caught.value) == (
        f"store {store}: the networks at hand are not those that made it: 1 fault\n"
        "  - clean/mean: factor: asked 1.0, found 2.0\n"
        "Say where the same weights lie now with --sd and --clip."
    )
    assert chunk_of(store, "clean/mean").read_bytes() == b"torn"


def test_where_there_is_no_store_nothing_is_made(tmp_path):
    for change in (
        lambda: repair(tmp_path / "none", load_backbones=None),
        lambda: prune(tmp_path / "none", views=["clean"]),
    ):
        with pytest.raises(StoreError, match=r"expected a folder with store\.json, found none"):
            change()
    assert list(tmp_path.iterdir()) == []


def test_two_descriptions_that_are_lost_at_once_are_told(made, store):
    (store / "store.json").write_text("")
    (store / "features.zarr/clean/mean/zarr.json").write_text("")
    with pytest.raises(StoreError) as caught:
        mend(store, made)
    assert str(caught.value) == (
        f"store {store}: expected a whole features.zarr/clean/mean/zarr.json, to make store.json "
        "from, found JSONDecodeError: Expecting value: line 1 column 1 (char 0). Two descriptions "
        "are lost; extract into another store."
    )


def test_a_lost_index_without_images_or_manifest_is_told(made, store):
    (store / "index.parquet").unlink()
    with pytest.raises(StoreError) as caught:
        repair(store, load_backbones=None, root="nowhere")
    assert str(caught.value) == (
        f"store {store}: of 13 rows 11 have an unknown image, the first is row 1. Name the "
        "manifests that were extracted with --manifest, and the folder of their images with --root."
    )
    assert repair(store, load_backbones=None, root=made[1]).left == ()
    assert bytes_below(store) == bytes_below(made[0])


def test_a_lost_index_of_images_in_tars_is_put_back(tmp_path):
    members = {f"{n}.png": make_image(n) for n in range(3)}
    put_tar(tmp_path, "s.tar", {name: data for name, (_, data) in members.items()})
    images = {image_id: (f"s.tar#{name}",) for name, (image_id, _) in members.items()}
    store = tmp_path / "store"
    extract_features(store, images, root=tmp_path, backbones=[FakeBackbone()], features=["mean"])
    before = bytes_below(store)
    (store / "index.parquet").unlink()
    assert repair(store, load_backbones=None, root=tmp_path).left == ()
    assert bytes_below(store) == before


def test_other_numbers_of_another_machine_get_a_record_of_their_own(made, store):
    """The chunk cannot be had again bit by bit: the record says so, and the store is whole."""

    class Elsewhere(FakeBackbone):
        def row(self, array, pixels, image_id):
            return super().row(array, pixels, image_id) * np.float32(1.0001)

    chunk_of(store, "clean/mean").write_bytes(b"torn")
    report = repair(store, load_backbones=lambda entries: [Elsewhere()], root=made[1])
    assert report.left == ()
    record = unseal((store / "commits/clean/mean/0.json").read_bytes())
    assert record["checksums"] != unseal((made[0] / "commits/clean/mean/0.json").read_bytes())


@pytest.mark.parametrize("codec", ["int8", "bitround:4", "zstd", "blosc:bitshuffle"])
def test_arrays_of_every_codec_are_mended(tmp_path, codec):
    images = write_images(tmp_path / "images", 6)
    extract_features(
        tmp_path / "store",
        images,
        root=tmp_path / "images",
        backbones=backbones(),
        features=["grid"],
        block_rows=BLOCK_ROWS,
        codec=codec,
    )
    before = bytes_below(tmp_path / "store")
    damaged = [n for n in before if not n.startswith("requests/")]
    for name in damaged:
        (tmp_path / "store" / name).write_bytes(before[name][: len(before[name]) // 2])
        report = repair(
            tmp_path / "store", load_backbones=lambda e: backbones(), root=tmp_path / "images"
        )
        assert report.left == ()
        assert_put_back(tmp_path / "store", before, name)
        (tmp_path / "store" / name).write_bytes(before[name])
