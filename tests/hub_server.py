"""A small Hugging Face Hub on loopback: listings, redirects to another host for contents, ranges, and faults."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What is published, and what goes wrong."""

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Contents by repository and path."""
    gated: set[str] = field(default_factory=set)
    """Repositories that want the token "good"."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Of a path after how many bytes its next connections end."""
    false: dict[str, bytes] = field(default_factory=dict)
    """Of a path what comes in the place of its content."""
    without_ranges: bool = False
    busy: int = 0
    """How many of the next requests for contents are answered by 503."""
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Host ("hub" or "contents"), path, Range and Authorization of each GET."""
    address: str = ""
    contents_address: str = ""

    def publish(self, repository: str, path: str, content: bytes) -> None:
        self.files[repository, path] = content

    def ranges(self, path: str) -> list[str | None]:
        """Of all GETs for the content of a path what they asked for."""
        return [span for host, name, span, _ in self.requests if host == "contents" and name.endswith(path)]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def note(self, host, path):
        if self.command == "GET":
            self.hub.requests.append((host, path, self.headers["Range"], self.headers["Authorization"]))

    def refused(self, repository):
        """Whether a gated repository was asked for without the right token; answers if so."""
        if repository not in self.hub.gated or self.headers["Authorization"] == "Bearer good":
            return False
        self.answer(
            401 if self.headers["Authorization"] is None else 403,
            X_Error_Code="GatedRepo",
            X_Error_Message=f"Access to model {repository} is restricted.",
        )
        return True


class _Front(_Handler):
    """huggingface.co."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.note("hub", path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.api("/".join(parts[2:4]), parts[4:])
            return
        repository, name = "/".join(parts[:2]), "/".join(parts[4:])
        if (repository, name) not in self.hub.files:
            self.answer(404, X_Error_Code="EntryNotFound")
        elif not self.refused(repository):
            self.answer(302, Location=f"{self.hub.contents_address}/{repository}/{name}?signature=1")

    do_HEAD = do_GET

    def api(self, repository, rest):
        known = {name: content for (owner, name), content in self.hub.files.items() if owner == repository}
        if not known:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif rest == ["auth-check"]:
            self.refused(repository) or self.answer(200, b"OK")
        elif rest[0] == "tree":
            entries = [self.entry(name, content) for name, content in known.items()]
            self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
        else:
            self.answer(404)

    @staticmethod
    def entry(name, content):
        told = {"type": "file", "path": name, "size": len(content)}
        told["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if not name.endswith(".json"):  # small texts are in git itself
            told["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return told


class _Contents(_Handler):
    """Where contents lie."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.note("contents", path)
        owner, repository, *rest = path.strip("/").split("/")
        name = "/".join(rest)
        if self.hub.busy:
            self.hub.busy -= 1
            self.answer(503)
            return
        content = self.hub.false.get(name, self.hub.files[f"{owner}/{repository}", name])
        span = None if self.hub.without_ranges else self.headers["Range"]
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        body = content[start:]
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(body)))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if cuts := self.hub.cuts.get(name):
            self.wfile.write(body[: cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(body)


@contextmanager
def serving():
    """A hub that answers, until the block ends."""
    hub = Hub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": hub}))
        for kind in (_Front, _Contents)
    ]
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    hub.address, hub.contents_address = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
