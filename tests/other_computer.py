"""Two computers in network namespaces of their own, joined by a cable: one serves, the other asks. Prints JSON.

Started by tests/test_other_computer.py in the first namespace; starts itself again, with the port, in the second.
"""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time

from test_load import TOKEN, segmenter_of
from test_serve import PHOTO, Network, png

from semseg.serve.app import make_app
from semseg.serve.running import listen, run_workers

SERVER, CLIENT = "10.99.0.1", "10.99.0.2"
MASK = ("POST", "/mask")
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def app():
    return make_app(segmenter_of(Network()), token=TOKEN)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def main():
    """The computer that serves: its two processes listen at all interfaces."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "here", "type", "veth", "peer", "name", "there")
    ip("address", "add", f"{SERVER}/24", "dev", "here")
    ip("link", "set", "here", "up")
    with listen(0, "0.0.0.0") as listener:
        words = ["unshare", "--net", sys.executable, __file__, str(listener.getsockname()[1])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, **pipes) as client:
            client.stdout.readline()
            ip("link", "set", "there", "netns", str(client.pid))
            threading.Thread(target=ask_and_end, args=(client,)).start()
            run_workers(app, listener, 2)


def ask_and_end(client):
    said, _ = client.communicate("go\n", timeout=100)
    print(said, flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGTERM)


def answers(port):
    """What the other computer is told, by what it asked."""
    data = png(PHOTO)
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    questions = {
        "nothing": (*MASK, data, {}),
        "a wrong token": (*MASK, data, {"Authorization": f"Bearer {TOKEN}x"}),
        "the page": ("GET", "/", None, {}),
        "metrics": ("GET", "/metrics", None, {}),
        "health": ("GET", "/healthz", None, {}),
        "the token": (*MASK, data, BEARER),
        "a password": (*MASK, data, {"Authorization": f"Basic {basic}"}),
        "another site": (*MASK, data, {**BEARER, "Origin": "http://evil.example"}),
        "a long body": (*MASK, None, {**BEARER, "Content-Length": str(1 << 30)}),
        "no photo": (*MASK, b"text", BEARER),
        "a path": ("GET", "/examples/..%2f..%2fetc%2fpasswd", None, BEARER),
    }
    return {name: [ask(port, *question) for _ in range(4)] for name, question in questions.items()}


def ask(port, method, path, body, headers):
    connection = http.client.HTTPConnection(SERVER, port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def be_the_client(port):
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    ip("address", "add", f"{CLIENT}/24", "dev", "there")
    ip("link", "set", "there", "up")
    end = time.monotonic() + 60
    while True:
        try:
            if ask(port, "GET", "/healthz", None, {}) == 200:
                break
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)
    print(json.dumps(answers(port)), flush=True)  # noqa: T201


if __name__ == "__main__":
    be_the_client(int(sys.argv[1])) if len(sys.argv) > 1 else main()
