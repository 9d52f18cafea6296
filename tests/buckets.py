"""A server of S3 on this machine, for tests."""

import os
import threading
from contextlib import contextmanager

BUCKET = "bucket"


@contextmanager
def s3_server(handler=None):
    """A server of moto, whose requests go through `handler(application)` if there is one; yields its address."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_):
            pass

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1", 0, handler(application) if handler else application, threaded=True, request_handler=Quiet
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upload(system, folder, address):
    """Copies a folder to an address of S3."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{address.removeprefix('s3://')}/{path.relative_to(folder)}", path.read_bytes())


def variables(endpoint):
    """What a process needs in its environment to find the server."""
    return {
        **os.environ, "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
