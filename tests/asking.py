"""What tests ask a server: by OpenAI's client as it is, and by hand."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.request
import warnings

import pytest
from PIL import Image
from serving import Serving, wait_for

openai = pytest.importorskip("openai")


def client_of(server: Serving, token: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key=token, max_retries=0)


def create(client, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.videos.create(**{"prompt": "a red circle moves left", **given})


def retrieve(client, id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.videos.retrieve(id)


def listed(client, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.videos.list(**given)


def deleted(client, id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.videos.delete(id)


def downloaded(client, id, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.videos.download_content(id, **given).read()


def over(client, id, seconds=60):
    def state():
        video = retrieve(client, id)
        return video if video.status in ("completed", "failed") else None

    return wait_for(state, seconds)


def picture(size=(64, 64), colour=(200, 30, 30), format="PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, format)
    return data.getvalue()


def as_address(data: bytes, type: str) -> str:
    return f"data:{type};base64,{base64.b64encode(data).decode()}"


def post(server, body, path="/v1/videos", **headers):
    """Status and answer to a JSON body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, told, _ = server.ask(path, "POST", data, **{"content_type": "application/json", **headers})
    return status, json.loads(told)


def post_form(server, fields, path="/v1/videos"):
    """The same of a form; bytes are files."""
    parts = []
    for name, value in fields.items():
        file = isinstance(value, bytes)
        head = f'Content-Disposition: form-data; name="{name}"' + '; filename="f.png"\r\nContent-Type: image/png' * file
        parts.append(f"--b\r\n{head}\r\n\r\n".encode() + (value if file else str(value).encode()) + b"\r\n")
    status, told, _ = server.ask(
        path, "POST", b"".join(parts) + b"--b--\r\n", content_type="multipart/form-data; boundary=b"
    )
    return status, json.loads(told)


def refused(answer) -> str:
    """The line of an error, which is OpenAI's object."""
    _, told = answer
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert "\n" not in told["error"]["message"]
    return told["error"]["message"]


class Events:
    """Hears of events in the background."""

    def __init__(self, server, path, token=None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.stream = urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers), timeout=60)
        self.found: list[tuple[str, dict]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        kind = ""
        for line in self.stream:
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                self.found.append((kind, json.loads(line[6:])))
