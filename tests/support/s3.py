"""A server that speaks the real S3 protocol, with one empty bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer
from pyarrow import fs

BUCKET = "crm-lake"
# read by every S3 client of this process and of those that it starts
_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def an_s3_server() -> Iterator[str]:
    """Yields the lake's URI on it."""
    os.environ.update(_KEYS)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        where = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        bucket, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?{where}&allow_bucket_creation=true")
        bucket.create_dir(BUCKET)
        yield f"s3://{BUCKET}/of/a/test?{where}"
    finally:
        server.stop()
