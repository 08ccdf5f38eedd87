"""Stores in a bucket: PUTs that break off, runs side by side, and damage."""

import http.client
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import boto3
import numpy as np
import pytest
from distributed import Client

from clare_cache.errors import StoreError
from clare_cache.extraction import OnDask, extract_features
from clare_cache.store import (
    StoreWriter,
    create_store,
    object_place,
    open_store,
    setup_lock,
    verify,
)
from clare_cache.store.lock import LOCK_FILE
from tests.fake_backbone import FakeBackbone, write_images
from tests.small_store import (
    BLOCK_ROWS,
    GRID,
    VECTOR,
    block,
    image_ids,
    make_store,
    values_of,
    write_all,
)


class FakeSource:
    def load(self):
        return [FakeBackbone()]


@contextmanager
def breaking_off(server, ending):
    """A way to the server that reads half of a PUT to keys with this ending, and hangs up."""
    host = urlsplit(server["AWS_ENDPOINT_URL"]).netloc
    broken = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            length = int(self.headers.get("Content-Length", 0))
            if self.command == "PUT" and self.path.endswith(ending):
                self.rfile.read(length // 2)
                broken.append(self.path)
                self.close_connection = True
                return
            there = http.client.HTTPConnection(host)
            body = self.rfile.read(length)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("date", "server", "content-length", "connection"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(size or 0))
            self.end_headers()
            self.wfile.write(data)
            there.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815

        def log_message(self, *arguments):
            pass

    between = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=between.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{between.server_port}", broken
    finally:
        between.shutdown()
        thread.join()
        between.server_close()


@pytest.mark.parametrize("ending", ["/c/1/0", "/ledger/clean/vector/1.json", "/vector/1.json"])
def test_a_put_that_breaks_off_leaves_no_record(bucket, s3_server, monkeypatch, ending):
    make_store(bucket).write_block(block(VECTOR, [0, 1, 2, 3]), versions={})
    before = open_store(bucket).place.names("commits")
    monkeypatch.setattr(object_place, "MAX_RETRIES", 1)
    with breaking_off(s3_server, ending) as (way, broken), monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", way)
        object_place._connect.cache_clear()
        with pytest.raises(StoreError, match="it cannot be reached at http"):
            StoreWriter(bucket).write_block(block(VECTOR, [4, 5], failed=[6]), versions={})
    object_place._connect.cache_clear()
    assert len(broken) == 2  # it was tried again
    found = open_store(bucket)
    assert found.place.names("commits") == before
    assert np.flatnonzero(found["clean/vector"].present).tolist() == [0, 1, 2, 3]
    StoreWriter(bucket).write_block(block(VECTOR, [4, 5], failed=[6]), versions={})
    assert verify(open_store(bucket)) == []


def test_runs_side_by_side_make_one_store(bucket, tmp_path):
    images = write_images(tmp_path / "images", 12)

    def run(number):
        return extract_features(
            bucket,
            images,
            root=tmp_path / "images",
            backbones=FakeSource(),
            features=["mean", "grid"],
            block_rows=2,
            workers=1,
        )

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(run, range(3)))
    assert {report.store for report in reports} == {bucket}
    extract_features(
        tmp_path / "whole",
        images,
        root=tmp_path / "images",
        backbones=FakeSource(),
        features=["mean", "grid"],
        block_rows=2,
    )
    found, whole = open_store(bucket), open_store(tmp_path / "whole")
    assert verify(found) == []
    chunks = whole.place.names("features.zarr")
    assert found.place.names("features.zarr") == chunks
    for name in chunks:
        assert found.place.read(name) == whole.place.read(name)
    assert LOCK_FILE not in found.place.children()


def test_workers_of_other_processes_open_it_by_its_url(bucket, tmp_path):
    images = write_images(tmp_path / "images", 8)
    with Client(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as client:
        report = extract_features(
            bucket,
            images,
            root=tmp_path / "images",
            backbones=FakeSource(),
            features=["mean"],
            block_rows=2,
            executor=OnDask(client),
        )
    assert report.n_decoded == 8
    assert open_store(bucket)["clean/mean"].present.all()


def test_writers_that_start_together_give_every_image_one_row(bucket):
    def start(number):
        writer = create_store(bucket, block_rows=BLOCK_ROWS)
        writer.add_images(image_ids(*range(5 * number, 5 * number + 7)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    found = open_store(bucket)
    assert len(set(found.image_ids)) == 22
    assert len(set(found.rows_of(found.image_ids).tolist())) == 22


def test_two_writers_of_different_blocks_do_not_meet(bucket):
    make_store(bucket)
    with ThreadPoolExecutor(2) as pool:
        for spec in (VECTOR, GRID):
            pool.submit(write_all, StoreWriter(bucket), spec)
    found = open_store(bucket)
    for spec in (VECTOR, GRID):
        assert np.array_equal(found[f"clean/{spec.name}"][:], values_of(spec, list(range(10))))


def test_damage_is_found(bucket):
    write_all(make_store(bucket))
    place = open_store(bucket).place
    place.write("features.zarr/clean/vector/c/0/0", b"\x00" * 48)
    place.delete("features.zarr/clean/vector/c/1/0")
    place.write("features.zarr/clean/vector/c/9/0", b"")
    place.write("commits/clean/grid/0.json", b"{")
    kinds = sorted(fault.kind for fault in verify(open_store(bucket)))
    assert kinds == ["altered chunk", "damaged commit record", "missing chunk", "orphan file"]


def test_a_lock_of_another_machine_is_respected(bucket):
    place = create_store(bucket).place
    place.write(LOCK_FILE, b"elsewhere 1")
    with pytest.raises(StoreError, match="is held by elsewhere 1"), setup_lock(place, seconds=0):
        pass
    assert place.read(LOCK_FILE) == b"elsewhere 1"


def test_objects_of_others_are_left_alone(bucket):
    client = boto3.client("s3")
    client.put_object(Bucket="features", Key=f"{bucket.rpartition('/')[2]}/holiday.jpg", Body=b"x")
    client.close()
    with pytest.raises(StoreError, match="found other files"):
        create_store(bucket)
