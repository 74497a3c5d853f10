"""The server: OpenAI's client as it is, files as they come, limits, tokens, cancelling and restarts."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from commands import run
from PIL import Image
from serving import LONG, SHORT, Serving, serving, wait_for

import sdltx
from sdltx import media
from sdltx.cli import main

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def client_of(server: Serving, token: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key=token, max_retries=0)


@pytest.fixture
def client(server):
    return client_of(server)


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


def test_a_video_as_openais_client_makes_it(server, client, tmp_path):
    video = create(client, size="128x64", seconds="0.75", extra_body={"seed": 7, "num_inference_steps": 2})
    assert video.id.startswith("video_")
    assert (video.object, video.model, video.size, video.seconds) == ("video", "LTX-2.3", "128x64", "0.75")
    assert video.status in ("queued", "in_progress")
    done = over(client, video.id)
    assert (done.status, done.progress, done.error) == ("completed", 100, None)
    assert done.completed_at >= done.created_at
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(downloaded(client, video.id))
    settings = media.read_settings(clip)
    assert (settings["seed"], settings["width"], settings["num_frames"]) == (7, 128, 9)
    # The command line makes the same.
    done = run(
        *("generate", "-p", "a red circle moves left", "-W", "128", "-H", "64", "--num-frames", "9", "--steps", "2"),
        *("-s", "7", "-o", tmp_path / "own.mp4", "--metadata", "plain"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "own.mp4").read_bytes() == clip.read_bytes()
    with Image.open(io.BytesIO(downloaded(client, video.id, variant="thumbnail"))) as small:
        assert small.size == (128, 64)
    with Image.open(io.BytesIO(downloaded(client, video.id, variant="spritesheet"))) as sheet:
        assert sheet.size == (512, 192)  # nine pictures, four in a row
    assert deleted(client, video.id).deleted
    with pytest.raises(openai.NotFoundError):
        retrieve(client, video.id)
    assert not (server.folder / "videos" / video.id).exists()


def test_sizes_of_openai_become_possible_ones(client):
    with pytest.raises(openai.UnprocessableEntityError, match="more than the"):
        create(client, size="9999x9999")
    video = create(client, size="100x72", extra_body={**SHORT, "width": None, "height": None})
    assert video.size == "128x64"
    assert over(client, video.id).status == "completed"


def test_pages_of_videos(client):
    made = [create(client, extra_body={**SHORT, "seed": seed}).id for seed in range(3)]
    newest = listed(client, limit=2)
    assert [video.id for video in newest.data] == made[:0:-1]
    assert newest.has_more
    assert listed(client, limit=2, after=made[1]).data[0].id == made[0]
    oldest_first = [video.id for video in listed(client, order="asc", limit=100)]
    assert [id for id in oldest_first if id in made] == made
    for id in made:
        assert over(client, id).status == "completed"


def test_models(client):
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).owned_by == "Lightricks"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sora-2")
    with pytest.raises(openai.NotFoundError, match=r"only 'LTX-2\.3'"):
        create(client, model="sora-2")


def test_pictures_and_sound_in_every_form(server, client, tmp_path):
    """As a part of a form, as a part that a field names, and in JSON: the same video."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 48000)).astype(np.float32)
    sdltx.sound.write(tmp_path / "noise.wav", noise, 48000)
    sound = (tmp_path / "noise.wav").read_bytes()
    first = create(client, input_reference=("first.png", picture(), "image/png"), extra_body=SHORT)
    second = post(
        server,
        {
            "prompt": "a red circle moves left",
            **SHORT,
            "input_reference": {"image_url": as_address(picture(), "image/png")},
        },
    )[1]
    third = post(
        server,
        {
            "prompt": "a red circle moves left",
            **SHORT,
            "images": [{"file": as_address(picture(), "image/png"), "frame": 0}],
        },
    )[1]
    clips = []
    for id in (first.id, second["id"], third["id"]):
        assert over(client, id).status == "completed"
        clips.append(downloaded(client, id))
    assert clips[0] == clips[1] == clips[2]
    told = json.loads(server.ask(f"/v1/videos/{first.id}")[1])["sdltx"]
    assert told["request"]["images"] == [{"path": "input-1.png", "frame": 0}]
    # Both at once, in one form.
    boundary = "----form"
    parts = [
        *(
            (f'name="{name}"', str(value).encode())
            for name, value in {"prompt": "x", **SHORT, "sound[start]": "0.25"}.items()
        ),
        ('name="sound"; filename="n.wav"\r\nContent-Type: audio/wav', sound),
        ('name="end"; filename="e.png"\r\nContent-Type: image/png', picture(colour=(0, 0, 200))),
        ('name="images"', b'[{"file": "end", "frame": -1, "strength": 0.5}]'),
    ]
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data)
        for head, data in parts
    )
    status, told, _ = server.ask(
        "/v1/videos",
        "POST",
        body + f"--{boundary}--\r\n".encode(),
        content_type=f"multipart/form-data; boundary={boundary}",
    )
    assert status == 200, told
    video = json.loads(told)
    assert video["sdltx"]["request"]["sound"]["start"] == 0.25
    assert video["sdltx"]["request"]["images"][0] == {"path": "input-1.png", "frame": -1, "strength": 0.5}
    assert over(client, video["id"]).status == "completed"
    # And the finished one is a film for another.
    status, again = post(
        server, {"prompt": "a sound", "film": video["id"], "foley": True, "num_inference_steps": 1, "seed": 3}
    )
    assert status == 200, again
    assert again["sdltx"]["task"] == "foley"
    assert over(client, again["id"]).status == "completed"


def test_sound_alone_is_a_wav(server, client):
    status, video = post(server, {"prompt": "a chord", **SHORT, "video": False})
    assert (status, video["sdltx"]["format"]) == (200, "wav")
    assert over(client, video["id"]).status == "completed"
    status, data, headers = server.ask(f"/v1/videos/{video['id']}/content")
    assert (status, data[:4], headers["content-type"]) == (200, b"RIFF", "audio/wav")
    assert server.ask(f"/v1/videos/{video['id']}/content?variant=thumbnail")[0] == 404


def test_remix_keeps_what_is_not_changed(server, client):
    first = create(client, input_reference=("first.png", picture(), "image/png"), extra_body=SHORT)
    assert over(client, first.id).status == "completed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        second = client.videos.remix(first.id, prompt="a blue square moves up")
    assert second.remixed_from_video_id == first.id
    assert second.prompt == "a blue square moves up"
    told = json.loads(server.ask(f"/v1/videos/{second.id}")[1])["sdltx"]
    assert (told["seed"], told["request"]["images"]) == (1, [{"path": "input-1.png", "frame": 0}])
    status, third = post(server, {"seed": 1}, f"/v1/videos/{first.id}/remix")
    assert status == 200, third
    for id in (second.id, third["id"]):
        assert over(client, id).status == "completed"
    assert downloaded(client, third["id"]) == downloaded(client, first.id)
    # What is given replaces what was there.
    path = f"/v1/videos/{first.id}/remix"
    status, other = post(server, {"input_reference": as_address(picture(colour=(0, 0, 200)), "image/png")}, path)
    assert status == 200, other
    assert len(other["sdltx"]["request"]["images"]) == 1
    status, last = post(server, {"sigmas": [1.0, 0.5, 0.0], "seconds": 1.5}, path)
    assert (status, last["sdltx"]["num_inference_steps"], last["sdltx"]["num_frames"]) == (200, 2, 17)
    assert server.ask(path, "POST")[0] == 200  # nothing is changed


def test_ranges_and_names_of_files(server, client):
    video = create(client, extra_body=SHORT)
    over(client, video.id)
    path = f"/v1/videos/{video.id}/content"
    status, whole, headers = server.ask(path)
    assert (status, headers["accept-ranges"]) == (200, "bytes")
    status, part, headers = server.ask(path, range="bytes=10-19")
    assert (status, part) == (206, whole[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert server.ask(path, range=f"bytes={len(whole)}-")[0] == 416
    for odd in ("bytes=abc", "items=0-1", "bytes=5-2", "bytes="):
        assert server.ask(path, range=odd)[:2] == (200, whole)
    assert f'attachment; filename="{video.id}.mp4"' in server.ask(path + "?download=1")[2]["content-disposition"]


class Events:
    """Hears of events in the background."""

    def __init__(self, server, path, token=None):
        import urllib.request

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


def test_events_tell_how_far_a_video_is(server, client):
    everything = Events(server, "/v1/events")
    wait_for(lambda: everything.found)
    video = create(client, extra_body={**SHORT, "num_inference_steps": 12, "width": 128, "height": 128})
    own = Events(server, f"/v1/videos/{video.id}/events")
    own.thread.join(60)  # it ends when the video is over
    states = [told["status"] for kind, told in own.found if kind == "video"]
    assert states[-1] == "completed"
    assert "in_progress" in states
    running = [told for _, told in own.found if told["status"] == "in_progress"]
    phases = {told["sdltx"]["phase"] for told in running}
    assert "denoise" in phases
    assert all("request" not in told["sdltx"] for told in running)  # which would be sent again and again
    assert own.found[-1][1]["sdltx"]["request"]["num_inference_steps"] == 12
    progress = [told["progress"] for told in running]
    assert progress == sorted(progress)
    assert any(told["sdltx"]["seconds_left"] is not None for told in running)
    assert any(told["sdltx"]["preview"] for told in running)
    wait_for(lambda: any(told.get("status") == "completed" and told["id"] == video.id for _, told in everything.found))
    status, data, headers = server.ask(f"/v1/videos/{video.id}/preview")
    assert (status, headers["content-type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(data)) as glance:
        assert glance.size == (32, 32)
    deleted(client, video.id)
    wait_for(lambda: ("deleted", {"id": video.id}) in everything.found)


def test_cancelled_within_a_second(server, client):
    running = create(client, extra_body=LONG)
    waiting = create(client, extra_body={**LONG, "seed": 2})
    wait_for(lambda: json.loads(server.ask(f"/v1/videos/{running.id}")[1])["sdltx"]["phase"] == "denoise")
    assert server.ask(f"/v1/videos/{running.id}/content")[0] == 409
    for id in (waiting.id, running.id):
        start = time.monotonic()
        assert server.ask(f"/v1/videos/{id}/cancel", "POST")[0] == 200
        video = over(client, id)
        assert time.monotonic() - start < 2  # and a shared machine
        assert (video.status, video.error.code) == ("failed", "cancelled")
    assert server.ask(f"/v1/videos/{running.id}/cancel", "POST")[0] == 200  # once more changes nothing
    after = create(client, extra_body=SHORT)
    assert over(client, after.id).status == "completed"


def test_deleted_while_it_is_made(server, client):
    video = create(client, extra_body=LONG)
    wait_for(lambda: json.loads(server.ask(f"/v1/videos/{video.id}")[1])["status"] == "in_progress")
    assert deleted(client, video.id).deleted
    assert server.ask(f"/v1/videos/{video.id}")[0] == 404
    wait_for(lambda: not (server.folder / "videos" / video.id).exists())
    assert over(client, create(client, extra_body=SHORT).id).status == "completed"


def test_what_is_wrong_is_told_before_it_is_taken(server, client):
    before = len(list((server.folder / "videos").iterdir()))
    for body, status, text in (
        ({}, 422, "no prompt"),
        ({"prompt": 3}, 422, "expected text"),
        ({"prompt": "x", "width": 100}, 422, "width 100"),
        ({"prompt": "x", "colour": "red"}, 422, "there is no option colour"),
        ({"prompt": "x", "size": "large"}, 422, "[size]"),
        ({"prompt": "x", "seconds": "long"}, 422, "[seconds]"),
        ({"prompt": "x", "seconds": 3600}, 422, "more than the 30 seconds"),
        ({"prompt": "x", "width": 4096, "height": 4096}, 422, "more than the"),
        ({"prompt": "x", "num_inference_steps": 900}, 422, "more than 100"),
        ({"prompt": "x", "format": "avi"}, 422, "[format]"),
        ({"prompt": "x", "input_reference": "/etc/passwd"}, 422, "no part of the form"),
        ({"prompt": "x", "input_reference": "http://localhost/a.png"}, 422, "no part of the form"),
        ({"prompt": "x", "images": [{"path": "/etc/passwd"}]}, 422, "there is no path"),
        ({"prompt": "x", "images": [{"file": "../../lock"}]}, 422, "no part of the form"),
        ({"prompt": "x", "images": [{"file": f"video_{'0' * 32}/../../lock"}]}, 422, "no part of the form"),
        ({"prompt": "x", "loras": ["/etc/passwd"]}, 422, "no file '/etc/passwd' on this server"),
        ({"prompt": "x", "upscaler": ["../up.safetensors"]}, 422, "on this server"),
        ({"prompt": "x", "input_reference": as_address(b"no picture", "image/png")}, 422, "input-1.png"),
        ({"prompt": "x", "input_reference": "data:image/png;base64,%%%"}, 422, "data:"),
        ({"prompt": "x", "sound": as_address(picture(), "image/png")}, 422, "no sound"),
        ({"prompt": "x", "video": False, "audio": False}, 422, ""),
        (b"{", 400, "no JSON"),
        (b"[]", 400, "no object"),
        (b'{"prompt": NaN}', 400, "no number"),
        (b"[" * 100_000, 400, "no JSON"),
        ({"prompt": "x" * 70_000}, 422, "64 KiB"),
        (b'{"prompt": "x", "seconds": 1' + b"0" * 400 + b"}", 422, "[seconds]"),
        (b'{"prompt": "x", "frame_rate": 1, "num_frames": 1' + b"0" * 400 + b"}", 422, "[num_frames]"),
        (b'{"prompt": "x", "num_inference_steps": 1' + b"0" * 400 + b"}", 422, "[num_inference_steps]"),
        (b'{"prompt": "x", "\\ud800": 1}', 422, "there is no option"),
        (b'{"prompt": "\\ud800"}', 422, "prompt"),
        ({"prompt": "x", "recipe": "a" * 100_000}, 422, "64 KiB"),
        ({"prompt": "x", "images": ["data:;base64,"] * 33}, 422, "more than 32 files"),
        ({"prompt": "x", "input_reference": as_address(picture((9000, 9000)), "image/png")}, 422, "9000x9000"),
    ):
        answer = post(server, body)
        assert answer[0] == status, (body, answer)
        assert text in refused(answer), (body, answer)
        assert str(server.folder) not in refused(answer), answer
    assert refused(post(server, b"prompt=x", content_type="text/plain")).startswith("send JSON")
    assert refused(post(server, b"", content_type="multipart/form-data")).startswith("the form is broken")
    for fields, text in (
        ({"prompt": "x", "images[x]": "1", "images[][file]": "2"}, "in several ways"),
        ({"prompt": "x", "images" + "[b]" * 1300: "1"}, "in several ways"),
        ({"prompt": "x", "input_referense": picture()}, "nothing asks for the file 'input_referense'"),
    ):
        assert text in refused(post_form(server, fields))
    assert refused(post(server, {"seed": "x"}, f"/v1/videos/video_{'0' * 32}/remix")).startswith("there is no video")
    for path, method in (
        ("/v1/nothing", "GET"),
        ("/v1/videos", "PUT"),
        ("/v1/videos?limit=x", "GET"),
        ("/v1/videos?after=x", "GET"),
    ):
        status, told, _ = server.ask(path, method)
        assert status in (404, 405, 422)
        assert refused((status, json.loads(told)))
    assert len(list((server.folder / "videos").iterdir())) == before


def test_plans_tell_what_a_video_costs(server, client):
    over(client, create(client, extra_body=SHORT).id)  # so that paces are known
    status, small = post(server, {"prompt": "x", **SHORT}, "/v1/plans")
    assert status == 200, small
    status, large = post(
        server, {"prompt": "x", **SHORT, "width": 256, "height": 256, "num_inference_steps": 20}, "/v1/plans"
    )
    assert large["memory"] > small["memory"] > 0
    assert large["estimated_seconds"] > 10 * small["estimated_seconds"] > 0
    assert small["misfit"] == ""
    assert refused(post(server, {"prompt": "x", "width": 7}, "/v1/plans"))


def test_headers_and_hosts(server):
    status, _, headers = server.ask("/v1/videos")
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in {name.lower() for name in headers}
    assert server.ask("/v1/videos", host="evil.example")[0] == 403
    assert server.ask("/v1/videos", host="localhost:80")[0] == 200
    assert server.ask("/v1/videos/x/cancel", "POST", origin="http://evil.example")[0] == 403
    assert server.ask("/v1/videos/x/cancel", "POST", origin=server.url)[0] == 404
    for odd in ("http://[", "null", "://"):
        assert refused((0, json.loads(server.ask("/v1/videos/x/cancel", "POST", origin=odd)[1])))
    # Without a token there is nothing to remember.
    status, _, headers = server.ask("/session", "POST", b'{"token": "\\u00e9"}', content_type="application/json")
    assert (status, "set-cookie" in headers) == (200, False)
    assert server.ask("/v1/videos", "OPTIONS", origin="http://evil.example")[0] == 405


def test_numbers_for_prometheus(server):
    status, text, _ = server.ask("/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert float(lines['sdltx_videos_total{status="completed"}']) > 0
    assert float(lines["sdltx_engine_up"]) == 1
    assert json.loads(server.ask("/health")[1])["status"] == "ok"


def test_a_token_is_needed_where_others_can_ask(tmp_path):
    done = run("serve", "--host", "0.0.0.0", "--data", tmp_path / "d", "--port", "0")
    assert done.returncode == 2
    assert "SDLTX_SERVER_TOKEN" in done.stderr
    done = run(
        "serve",
        "--host",
        "0.0.0.0",
        "--data",
        tmp_path / "d",
        "--port",
        "0",
        env={**os.environ, "SDLTX_SERVER_TOKEN": "t"},
    )
    assert "--allow-host" in done.stderr
    with serving(
        tmp_path / "d", "--host", "0.0.0.0", "--allow-host", "127.0.0.1", env={"SDLTX_SERVER_TOKEN": "secret"}
    ) as server:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        for path in ("/v1/videos", "/v1/options", "/metrics", "/v1/events"):
            assert server.ask(path)[0] == 401, path
            assert server.ask(path, authorization="Bearer other")[0] == 401
            assert server.ask(path, authorization="Bearer s\xe9cret")[0] == 401
        assert server.ask("/health")[0] == 200
        assert listed(client_of(server, "secret")).data == []
        status, _, _ = server.ask("/session", "POST", b'{"token": "other"}', content_type="application/json")
        assert status == 401
        status, _, headers = server.ask("/session", "POST", b'{"token": "secret"}', content_type="application/json")
        assert status == 200
        assert "HttpOnly" in headers["set-cookie"]
        assert "SameSite=strict" in headers["set-cookie"]
        cookie = headers["set-cookie"].split(";")[0]
        assert server.ask("/v1/videos", cookie=cookie)[0] == 200
        assert server.ask("/v1/videos", cookie="sdltx_token=other")[0] == 401
        for others in ('a={"x":1}', "foo bar=1", "novalue", "a=x y"):  # of other programs on this machine
            assert server.ask("/v1/videos", cookie=f"{others}; {cookie}")[0] == 200, others
        odd = b'{"token": "\\ud800"}'
        assert server.ask("/session", "POST", odd, content_type="application/json")[0] == 401


def test_limits_of_bodies_and_queue(tmp_path):
    with serving(tmp_path / "d", "--queue", "2", "--upload", "1", "--largest", "128x128", "--longest", "1") as server:
        big = as_address(b"x" * (33 << 20), "image/png").encode()
        status, told, _ = server.ask("/v1/videos", "POST", b'{"prompt": "' + big, content_type="application/json")
        assert (status, json.loads(told)["error"]["code"]) == (413, "too_large")
        status, told, _ = server.ask(
            "/v1/videos", "POST", b"x" * (2 << 20), content_type="multipart/form-data; boundary=x"
        )
        assert status == 413
        assert refused(post(server, {"prompt": "x", "size": "256x128"}))
        assert "more than the 1 seconds" in refused(post(server, {"prompt": "x", "seconds": 2}))
        long = {"prompt": "x", **LONG, "width": 128, "height": 128, "num_frames": 9}
        assert [post(server, long)[0] for _ in range(2)] == [200, 200]
        status, told, headers = server.ask(
            "/v1/videos", "POST", json.dumps(long).encode(), content_type="application/json"
        )
        assert status == 429
        assert headers["retry-after"]


def test_what_does_not_fit_is_not_taken(tmp_path):
    with serving(tmp_path / "d", "--max-memory", "0.02") as server:
        answer = post(server, {"prompt": "x", "width": 1024, "height": 1024, "num_frames": 121})
        assert answer[0] == 422
        assert answer[1]["error"]["code"] == "out_of_memory"


def test_a_crash_is_a_failed_video_and_a_new_engine(server, client):
    video = create(client, extra_body=LONG)
    waiting = create(client, extra_body=SHORT)
    wait_for(lambda: json.loads(server.ask(f"/v1/videos/{video.id}")[1])["status"] == "in_progress")
    os.kill(server.engine(), signal.SIGSEGV)
    done = over(client, video.id)
    assert (done.status, done.error.code) == ("failed", "engine_crashed")
    assert "SIGSEGV" in done.error.message
    assert over(client, waiting.id).status == "completed"
    assert b"sdltx_engine_restarts_total 1.0" in server.ask("/metrics")[1]


def test_prompts_of_one_size_are_encoded_together(server, client):
    """While one is made others wait; those of one size become one group."""
    first = create(client, extra_body={**SHORT, "num_inference_steps": 30, "width": 128, "height": 128})
    same = [create(client, prompt=f"a {colour} circle", extra_body=SHORT).id for colour in ("red", "blue")]
    other = create(client, extra_body={**SHORT, "width": 96}).id
    last = create(client, prompt="a green circle", extra_body=SHORT).id
    ends = {}
    for id in (first.id, *same, other, last):
        assert over(client, id).status == "completed"
    db = sqlite3.connect(server.folder / "videos.sqlite")
    ends = dict(db.execute("SELECT id, completed FROM videos"))
    db.close()
    assert ends[same[0]] < ends[same[1]] < ends[last] < ends[other]  # the last one was taken along
    for id, colour in zip(same, ("red", "blue"), strict=True):
        alone = sdltx.load().generate(f"a {colour} circle", **SHORT)
        path = server.folder / "videos" / id / "video.mp4"
        assert media.read_settings(path)["prompt"] == f"a {colour} circle"
        np.testing.assert_array_equal(len(alone.frames), 9)


def test_stopped_servers_go_on_with_the_queue(tmp_path):
    """Gracefully: what is made waits again, what is done stays."""
    with serving(tmp_path / "d") as server:
        client = client_of(server)
        done = create(client, extra_body=SHORT)
        over(client, done.id)
        made = create(client, extra_body={**SHORT, "num_inference_steps": 25, "width": 128, "height": 128})
        waiting = create(client, extra_body=SHORT)
        wait_for(lambda: json.loads(server.ask(f"/v1/videos/{made.id}")[1])["status"] == "in_progress")
        events = Events(server, "/v1/events")
        wait_for(lambda: events.found)
        engine = server.engine()
        with pytest.raises(AssertionError, match="another server"), serving(tmp_path / "d"):
            pass
        start = time.monotonic()
        assert server.end() == 0, server.lines
        assert time.monotonic() - start < 10
        assert not Path(f"/proc/{engine}").exists()
    with serving(tmp_path / "d") as server:
        client = client_of(server)
        assert downloaded(client, done.id)[4:8] == b"ftyp"
        for id in (made.id, waiting.id):
            assert over(client, id).status == "completed"
        assert server.end(signal.SIGINT) == 0


def states(folder: Path) -> dict[str, str]:
    db = sqlite3.connect(folder / "videos.sqlite")
    try:
        return dict(db.execute("SELECT id, status FROM videos"))
    finally:
        db.close()


@pytest.mark.parametrize("moment", range(100))
@pytest.mark.by_day(1)
def test_killed_servers_lose_nothing(tmp_path_factory, moment):
    """kill -9 at some moment: what was taken is made, what was finished is there, and all is as if made alone."""
    folder = tmp_path_factory.getbasetemp() / "killed" / "d"
    seeds = np.random.default_rng(moment)
    with serving(folder) as server:
        bodies = [
            {"prompt": "a red circle", **SHORT, "seed": int(seed), "num_inference_steps": 2}
            for seed in seeds.integers(1000, size=3)
        ]
        taken = {}
        for body in bodies:
            status, told = post(server, body)
            assert status == 200, told
            taken[told["id"]] = body["seed"]
        time.sleep(float(seeds.uniform(0, 1.2)))
        finished = {id for id, status in states(folder).items() if status == "completed"}
        engine = server.engine()
        server.end(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{engine}").exists(), 10)
    for id in finished:
        assert (folder / "videos" / id / "video.mp4").exists()
    with serving(folder) as server:
        for id, seed in taken.items():
            wait_for(lambda one=id: states(folder)[one] == "completed")
            assert media.read_settings(folder / "videos" / id / "video.mp4")["seed"] == seed
            assert not list((folder / "videos" / id).glob(".sdltx-*"))
        server.end()


def test_usage_errors(tmp_path, capsys):
    for arguments, text in (
        (["--largest", "big"], "--largest"),
        (["--queue", "0"], "--queue"),
        (["--port", "99999"], "--port"),
        (["--host", "300.1.2.3", "--token-file", __file__], "cannot listen"),
        (["--files", tmp_path / "none"], "--files"),
        (["--token-file", tmp_path / "none"], "--token-file"),
        (["--keep-days", "-1"], "--keep-days"),
        (["-m", tmp_path / "none.gguf"], "none.gguf"),
    ):
        assert main(["serve", "--data", str(tmp_path / "d"), *map(str, arguments)]) in (2, 3)
        said = capsys.readouterr().err
        assert text in said
        assert "Traceback" not in said


def test_without_its_extra_it_says_how_to_get_it(tmp_path):
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from sdltx.cli import main; sys.exit(main(['serve', '--data', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "d"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install "sdltx[server]"' in done.stderr
