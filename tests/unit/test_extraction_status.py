"""Progress from the records alone: what was asked, what is there, how fast, how long still."""

from datetime import UTC, datetime, timedelta

from clare_cache.extraction import extract_features
from clare_cache.extraction.status import read_status
from clare_cache.store import open_store
from clare_cache.store.seal import sealed, unseal
from tests.fake_backbone import FakeBackbone, write_images

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make(tmp_path, **options):
    images = write_images(tmp_path / "images", 20)
    (tmp_path / "images/003.png").unlink()
    extract_features(
        tmp_path / "store",
        images,
        root=tmp_path / "images",
        backbones=[FakeBackbone()],
        features=["mean"],
        block_rows=4,
        **options,
    )
    return tmp_path / "store"


def stamp(store, minutes):
    for block, path in enumerate(sorted((store / "commits/clean/mean").iterdir())):
        when = START + timedelta(minutes=minutes[block])
        record = unseal(path.read_bytes()) | {"finished_at": when.isoformat()}
        path.write_bytes(sealed(record))


def test_a_finished_store(tmp_path):
    store = make(tmp_path)
    stamp(store, [0, 1, 2, 3, 4])
    (status,) = read_status(open_store(store))
    assert (status.key, status.n_asked, status.n_done, status.n_failed) == (
        "clean/mean",
        20,
        19,
        1,
    )
    assert status.images_per_second == 16 / 240
    assert status.eta_seconds is None
    assert status.newest == START + timedelta(minutes=4)


def test_a_store_in_the_making_has_an_eta(tmp_path):
    store = make(tmp_path, shard=(0, 2))
    stamp(store, [0, 1, 2])
    (status,) = read_status(open_store(store))
    assert status.n_done + status.n_failed == 12
    assert status.images_per_second == 8 / 120
    assert status.eta_seconds == 8 / (8 / 120)


def test_work_of_another_day_does_not_count_in_the_rate(tmp_path):
    store = make(tmp_path)
    stamp(store, [0, 1, 3000, 3001, 3002])
    (status,) = read_status(open_store(store))
    assert status.images_per_second == 8 / 120


def test_without_a_block_there_is_no_rate(tmp_path):
    store = make(tmp_path, shard=(7, 8))
    (status,) = read_status(open_store(store))
    assert (status.n_asked, status.n_done) == (20, 0)
    assert status.images_per_second is status.eta_seconds is status.newest is None
