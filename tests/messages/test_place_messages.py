"""What is said when a store's place cannot be used, word for word."""

import importlib.util
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from clare_cache.errors import StoreError
from clare_cache.store import create_store, object_place, open_store


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(object_place, "MAX_RETRIES", 0)
    object_place._connect.cache_clear()
    yield
    object_place._connect.cache_clear()


def said(act, url) -> str:
    with pytest.raises(StoreError) as caught:
        act(url)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "ftp://host/faces",
            "expected a folder or a URL that begins with s3://, gs:// or az://, found ftp://.",
        ),
        ("s3://faces", "expected s3://BUCKET/PATH, found no path in the bucket."),
        ("gs://", "expected gs://BUCKET/PATH, found no bucket."),
    ],
)
def test_urls_that_name_no_store(url, message):
    for act in (open_store, create_store):
        assert said(act, url) == f"store {url}: {message}"


def test_without_the_library(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        object_place, "find_spec", lambda name: None if name == "obstore" else find(name)
    )
    assert said(open_store, "s3://bucket/faces") == (
        "store s3://bucket/faces: object stores are read and written through obstore, which is "
        "not installed. Install it with `pip install 'clare-cache[s3]'`."
    )


def test_a_wrong_bucket(bucket, s3_server):
    for act in (open_store, create_store):
        assert said(act, "s3://no-such-bucket/faces") == (
            "store s3://no-such-bucket/faces: expected a bucket no-such-bucket, found none at "
            f"{s3_server['AWS_ENDPOINT_URL']} (AWS_ENDPOINT_URL). Correct the URL, or make the "
            "bucket."
        )


def test_no_store_in_the_bucket(bucket):
    assert said(open_store, f"{bucket}/faces/") == (
        f"store {bucket}/faces: expected a folder with store.json, found none. "
        "Make one with `clare-cache extract MANIFEST STORE`."
    )


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_refused_credentials(bucket, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    try:
        found = said(open_store, "s3://bucket/faces")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found == (
        f"store s3://bucket/faces: the credentials were refused at {endpoint} (AWS_ENDPOINT_URL). "
        "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (of gs:// and az:// "
        "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and …_KEY) to those of "
        "somebody who may read and write there."
    )


def test_nobody_answers(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = said(open_store, "s3://bucket/faces")
    assert found.startswith(
        "store s3://bucket/faces: it cannot be reached at http://127.0.0.1:9 (AWS_ENDPOINT_URL), "
        "GenericError: "
    )
    assert "Debug source" not in found
