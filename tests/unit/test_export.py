"""The files of other tools hold the store's values, in pieces, with labels and splits joined."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clare_cache.errors import StoreError
from clare_cache.extraction.request import read_all_requests, write_request
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, BlockData, create_store, open_store
from clare_cache.types import ArraySpec
from clare_cache.workflow import export
from clare_cache.workflow.export import export_store
from clare_cache.workflow.merge import merge

EMBEDDING = ArraySpec("clip_embedding", (8,), ("channel",), "float16", "a vector")
TOKENS = ArraySpec("clip_block_cls", (3, 4), ("block", "channel"), "float16", "three vectors")
MAP = ArraySpec("error_map", (4, 2, 2), ("channel", "row", "column"), "float32", "a map")
ARRAYS = ["clip_embedding", "clip_block_cls", "error_map"]
IDS = [f"{number:064x}" for number in range(11)]


@pytest.fixture
def store(tmp_path):
    """Ten rows; row 7 is absent from error_map."""
    writer = create_store(tmp_path / "store", block_rows=4)
    writer.add_images(IDS[:10])
    writer.declare([ArrayEntry("clean", spec, 0, {"w": 1}) for spec in (EMBEDDING, TOKENS, MAP)])
    random = np.random.default_rng(0)
    for spec in (EMBEDDING, TOKENS, MAP):
        for block in range(3):
            rows = np.arange(block * 4, min(block * 4 + 4, 10))
            rows = rows[(rows != 7) | (spec is not MAP)]
            values = random.standard_normal((len(rows), *spec.shape)).astype(spec.dtype)
            writer.write_block(BlockData("clean", spec.name, block, rows, values), versions={})
    return open_store(tmp_path / "store")


@pytest.fixture
def manifest():
    """Eleven rows, the last of which the store does not know; the odd ones are fake."""
    return Manifest.from_rows(
        pd.DataFrame(
            {
                "image_id": IDS,
                "path": [f"a/{number}.png" for number in range(11)],
                "label": [number % 2 for number in range(11)],
                "split": ["train"] * 6 + ["test"] * 5,
            }
        )
    )


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_embeddings_as_clip_retrieval_writes_them(store, manifest, tmp_path):
    out, seen = tmp_path / "out", []
    report = export_store(store, out, manifest=manifest, rows_per_file=4, on_progress=seen.append)
    assert files_below(out) == [
        "export.json",
        *(f"img_emb/img_emb_000{n}.npy" for n in range(3)),
        *(f"metadata/metadata_000{n}.parquet" for n in range(3)),
    ]
    assert (report.n_images, report.n_files, report.n_written, report.n_left_out) == (10, 6, 6, 1)
    assert (seen[-1].what, seen[-1].done, seen[-1].total) == ("export", 10, 10)
    vectors, lines = [], []
    for number in range(3):
        vectors.append(np.load(out / f"img_emb/img_emb_000{number}.npy"))
        lines.append(pd.read_parquet(out / f"metadata/metadata_000{number}.parquet"))
        assert len(vectors[-1]) == len(lines[-1])
    found, told = np.concatenate(vectors), pd.concat(lines)
    assert found.dtype == np.float16
    assert np.allclose(np.linalg.norm(found.astype(float), axis=1), 1, atol=1e-3)
    raw = store["clean/clip_embedding"].by_image_id(told["image_id"].tolist()).astype(float)
    assert np.allclose(found, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-3)
    by_id = manifest.rows.set_index("image_id").loc[told["image_id"]]
    assert told["image_path"].tolist() == by_id["path"].tolist()
    assert told["label"].tolist() == by_id["label"].tolist()
    assert told["split"].tolist() == by_id["split"].tolist()


def test_a_vector_of_zeros_stays_one(tmp_path):
    writer = create_store(tmp_path / "store", block_rows=4)
    writer.add_images(IDS[:1])
    writer.declare([ArrayEntry("clean", EMBEDDING, 0, {"w": 1})])
    zeros = np.zeros((1, 8), "float16")
    writer.write_block(BlockData("clean", "clip_embedding", 0, np.array([0]), zeros), versions={})
    export_store(open_store(tmp_path / "store"), tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/img_emb/img_emb_0000.npy"), zeros)


def test_without_a_manifest_every_image_is_exported_by_the_path_of_its_request(tmp_path):
    from clare_cache.extraction import extract_features
    from tests.fake_backbone import FakeBackbone, write_images

    images = write_images(tmp_path / "images", 3)
    extract_features(
        tmp_path / "store",
        images,
        root=tmp_path / "images",
        backbones=[FakeBackbone()],
        features=["mean"],
    )
    export_store(open_store(tmp_path / "store"), tmp_path / "out", arrays=["mean"])
    lines = pd.read_parquet(tmp_path / "out/metadata/metadata_0000.parquet")
    paths = {image: paths[0] for image, paths in images.items()}
    assert dict(zip(lines["image_id"], lines["image_path"], strict=True)) == paths


def test_parquet_of_hugging_face_by_split_with_the_names_of_the_labels(store, manifest, tmp_path):
    out = tmp_path / "out"
    report = export_store(
        store, out, form="parquet", arrays=ARRAYS, manifest=manifest, rows_per_file=4
    )
    assert files_below(out) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "export.json",
    ]
    assert (report.n_images, report.n_left_out) == (9, 2)
    table = pq.read_table(out / "data/train-00000-of-00002.parquet")
    told = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert told == {"label": {"names": ["real", "fake"], "_type": "ClassLabel"}}
    ids = table["image_id"].to_pylist()
    for name in ARRAYS:
        values = np.array(table[name].to_pylist())
        assert np.array_equal(values, store[f"clean/{name}"].by_image_id(ids))
    assert set(table["split"].to_pylist()) == {"train"}
    assert table["path"].to_pylist() == ["a/0.png", "a/1.png", "a/2.png", "a/3.png"]


def test_webdataset_one_sample_an_image(store, manifest, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, form="webdataset", arrays=ARRAYS, manifest=manifest, rows_per_file=4)
    assert files_below(out) == [
        "export.json",
        "test-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
    ]
    keys = set()
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar}
        for key in {name.partition(".")[0] for name in data}:
            line = json.loads(data[f"{key}.json"])
            assert data[f"{key}.cls"] == str(line["label"]).encode()
            assert path.name.startswith(line["split"])
            for name in ARRAYS:
                value = np.load(io.BytesIO(data[f"{key}.{name}.npy"]))
                expected = store[f"clean/{name}"].by_image_id([line["image_id"]])[0]
                assert np.array_equal(value, expected)
            keys.add(key)
    assert len(keys) == 9


@pytest.mark.parametrize("form", ["npy", "parquet", "webdataset"])
def test_an_interrupted_export_goes_on_to_the_same_files(store, manifest, tmp_path, form):
    arrays = ["clip_embedding"]

    def make(out, **options):
        return export_store(
            store, out, form=form, arrays=arrays, manifest=manifest, rows_per_file=4, **options
        )

    whole = make(tmp_path / "whole")

    def stop(step):
        if step.done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", on_progress=stop)
    report = make(tmp_path / "out")
    assert 0 < report.n_written < whole.n_files
    for name in files_below(tmp_path / "whole"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_no_more_than_a_piece_is_read_at_once(store, tmp_path, monkeypatch):
    from clare_cache.store import ArrayHandle

    read, sizes = ArrayHandle.read_rows, []
    monkeypatch.setattr(
        ArrayHandle, "read_rows", lambda self, rows: sizes.append(len(rows)) or read(self, rows)
    )
    monkeypatch.setattr(export, "PIECE_NBYTES", 3 * EMBEDDING.row_nbytes)
    export_store(store, tmp_path / "out")
    assert sizes == [3, 3, 3, 1]


def test_what_cannot_be_exported_is_told_at_once(store, tmp_path):
    with pytest.raises(StoreError) as caught:
        export_store(store, tmp_path / "out", arrays=["clip_block_cls", "tokens"])
    assert str(caught.value) == (
        f"export of store {store.place}: 3 faults\n"
        "  - array tokens: expected one of view clean's, clip_block_cls, clip_embedding, "
        "error_map\n"
        "  - npy holds one array, found clip_block_cls, tokens\n"
        "  - array clip_block_cls: npy holds vectors, found axes block, channel; use --format "
        "parquet or webdataset"
    )
    with pytest.raises(StoreError) as caught:
        export_store(store, tmp_path / "out", form="csv", view="flip")
    assert str(caught.value) == (
        f"export of store {store.place}: 2 faults\n"
        "  - format: expected one of npy, parquet, webdataset, found csv\n"
        "  - array clip_embedding: expected one of view flip's, which has none"
    )
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_written_over(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(StoreError) as caught:
        export_store(store, out)
    assert str(caught.value) == (
        f"export into {out}: expected an empty folder or an export to go on with, found other "
        "files. Name another folder."
    )
    export_store(store, tmp_path / "b")
    with pytest.raises(StoreError) as caught:
        export_store(store, tmp_path / "b", rows_per_file=3)
    assert str(caught.value) == (
        f"export into {tmp_path}/b: expected the export that was begun there, found one of other "
        "rows, arrays or options in export.json. Name another folder, or remove it."
    )


def test_the_command_ends_with_status_3_where_images_are_left_out(
    store, manifest, tmp_path, command
):
    manifest.write(tmp_path / "m.csv")
    done = command("store", "export", "store", "out", "--manifest", "m.csv", folder=tmp_path)
    assert done.status == 3
    assert done.out == "out: 10 images in 2 files, 2 written now, 1 left out for want of a row\n"
    done = command("store", "export", "store", "all", "--json", folder=tmp_path)
    assert done.status == 0
    assert json.loads(done.out)["n_images"] == 10


def test_a_request_that_was_altered_is_told_and_left_out(store, tmp_path):
    """By export and by merge; the paths of the other requests are still known."""
    place = store.place
    kept = write_request(place, np.arange(0, 5), [(f"a/{n}.png",) for n in range(5)])
    lost = write_request(place, np.arange(5, 10), [(f"b/{n}.png",) for n in range(5, 10)])
    exported = export_store(store, tmp_path / "whole", arrays=["clip_embedding"])
    assert exported.notes == ()
    (tmp_path / "store" / lost).write_bytes((tmp_path / "store" / kept).read_bytes())
    sentence = (
        f"store {place}: {lost} was altered since it was written and is left out, so paths of "
        "images may be lacking. `clare-cache store repair` with the --manifest that was "
        "extracted writes it anew."
    )
    assert export_store(store, tmp_path / "part", arrays=["clip_embedding"]).notes == (sentence,)
    paths = pd.read_parquet(tmp_path / "part/metadata/metadata_0000.parquet")["image_path"]
    assert paths.tolist() == [*(f"a/{n}.png" for n in range(5)), *IDS[5:10]]
    assert merge(tmp_path / "merged", [tmp_path / "store"]).notes == (sentence,)
    assert read_all_requests(open_store(tmp_path / "merged").place) == {
        n: (f"a/{n}.png",) for n in range(5)
    }


def test_the_command_tells_of_altered_requests(store, tmp_path, command):
    lost = write_request(store.place, np.arange(10), [(f"a/{n}.png",) for n in range(10)])
    (tmp_path / "store" / lost).write_bytes(b"x")
    for arguments in (("export", "store", "out"), ("merge", "merged", "store")):
        done = command("store", *arguments, folder=tmp_path)
        assert done.status == 0, done.err
        assert f"{lost} was altered since it was written and is left out, so paths" in done.err
