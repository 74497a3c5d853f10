"""The server: videos as OpenAI's client and others make them, from files as they come."""

from __future__ import annotations

import io
import json
import sqlite3
import time
import warnings

import numpy as np
import pytest
from asking import (
    Events,
    as_address,
    create,
    deleted,
    downloaded,
    listed,
    over,
    picture,
    post,
    post_form,
    retrieve,
)
from commands import run
from PIL import Image
from serving import LONG, SHORT, wait_for

import sdltx
from sdltx import media

openai = pytest.importorskip("openai")


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
    status, other = post_form(server, {"images": picture(colour=(0, 200, 0))}, path)
    assert (status, len(other["sdltx"]["request"]["images"])) == (200, 1), other


def test_remix_with_another_film_or_sound(server, client, tmp_path):
    """The file is another one, and what was said of the one before does not count for it."""
    for name, seconds in (("a.wav", 1), ("b.wav", 2)):
        noise = np.random.default_rng(seconds).uniform(-0.5, 0.5, (2, 48000 * seconds)).astype(np.float32)
        sdltx.sound.write(tmp_path / name, noise, 48000)
    sounds = [as_address((tmp_path / name).read_bytes(), "audio/wav") for name in ("a.wav", "b.wav")]
    status, heard = post(server, {"prompt": "x", **SHORT, "sound": {"file": sounds[0], "start": 0.25}})
    assert status == 200, heard
    status, same = post(server, {"prompt": "y"}, f"/v1/videos/{heard['id']}/remix")
    status, other = post(server, {"sound": sounds[1]}, f"/v1/videos/{heard['id']}/remix")
    assert status == 200, other
    shown = [one["sdltx"]["request"]["sound"] for one in (heard, same, other)]
    assert [one.get("start") for one in shown] == [0.25, 0.25, None]
    files = [
        (server.folder / "videos" / one["id"] / one["sdltx"]["request"]["sound"]["path"]).read_bytes()
        for one in (heard, same, other)
    ]
    assert files[0] == files[1] == (tmp_path / "a.wav").read_bytes()
    assert files[2] == (tmp_path / "b.wav").read_bytes()
    assert over(client, other["id"]).status == "completed"

    films = [create(client, extra_body={**SHORT, "seed": seed}).id for seed in (1, 2)]
    for film in films:
        assert over(client, film).status == "completed"
    status, sound = post(server, {"video": False}, f"/v1/videos/{films[0]}/remix")
    assert (status, sound["sdltx"]["format"]) == (200, "wav"), sound
    status, heard = post(server, {"prompt": "a chord", "film": films[0], "foley": True, "num_inference_steps": 1})
    assert status == 200, heard
    status, other = post(server, {"film": films[1]}, f"/v1/videos/{heard['id']}/remix")
    assert status == 200, other
    assert (other["sdltx"]["task"], other["sdltx"]["seed"]) == ("foley", heard["sdltx"]["seed"])
    taken = [server.folder / "videos" / one["id"] / one["sdltx"]["request"]["film"]["path"] for one in (heard, other)]
    assert [path.read_bytes() for path in taken] == [downloaded(client, film) for film in films]
    assert over(client, other["id"]).status == "completed"


def test_what_is_listed_may_be_deleted_meanwhile(server, client):
    """The client asks for what comes after the last one that it was told of, which is gone by then."""
    made = [create(client, extra_body={**SHORT, "seed": seed}).id for seed in range(5)]
    for id in made:
        assert over(client, id).status == "completed"
    for order in ("desc", "asc"):
        found = [video.id for video in listed(client, limit=2, order=order)]
        assert set(made) <= set(found)
    gone = []
    for video in listed(client, limit=2):
        deleted(client, video.id)
        gone.append(video.id)
    assert set(made) <= set(gone)
    assert json.loads(server.ask("/v1/videos")[1])["data"] == []
    assert server.ask(f"/v1/videos?after=video_{'0' * 32}")[0] == 404


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
    status, told, headers = server.ask(path, range=f"bytes={len(whole)}-")
    assert (json.loads(told)["error"]["code"], headers["content-range"]) == (
        "requested_range_not_satisfiable", f"bytes */{len(whole)}",
    )  # fmt: skip
    assert server.ask(path, range=f"bytes=4-7, {len(whole)}-")[:2] == (206, whole[4:8])
    for odd in ("bytes=abc", "items=0-1", "bytes=5-2", "bytes=", "bytes=0-1,5-2", f"bytes={'9' * 5000}-"):
        assert server.ask(path, range=odd)[:2] == (200, whole)
    assert f'attachment; filename="{video.id}.mp4"' in server.ask(path + "?download=1")[2]["content-disposition"]


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


def test_numbers_for_prometheus(server):
    status, text, _ = server.ask("/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert float(lines['sdltx_videos_total{status="completed"}']) > 0
    assert float(lines["sdltx_engine_up"]) == 1
    assert json.loads(server.ask("/health")[1])["status"] == "ok"


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
