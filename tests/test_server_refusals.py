"""What the server refuses, tells before it is taken, and keeps from others."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from asking import (
    as_address,
    client_of,
    create,
    listed,
    over,
    picture,
    post,
    post_form,
    refused,
)
from commands import run
from serving import LONG, SHORT, serving

from sdltx.cli import main


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
        (b'{"prompt": "x", "guidance_scale": 1e999}', 400, "too large"),
        (b'{"prompt": "x", "enhance_system": "\\ud800"}', 422, "[enhance_system]"),
        # What clips tell beside their options.
        ({"prompt": "x", "upscalers": ["/etc/passwd"]}, 422, "no option upscalers"),
        ({"prompt": "x", "device": ["cpu"]}, 422, "no option device"),
        ({"prompt": "x", "task": "foley", "noise": {}}, 422, "no option noise, task"),
        ({"prompt": "x", "enhanced_from": "y"}, 422, "no option enhanced_from"),
        ({"prompt": "x", "loras": [["junk.safetensors"]]}, 422, "pairs"),
        ({"prompt": "x", "loras": "junk.safetensors"}, 422, "no file 'junk.safetensors'"),
        ({"prompt": "x", "images": ["data:;base64,"] * 33}, 422, "more than 32 files"),
        ({"prompt": "x", "input_reference": as_address(picture((9000, 9000)), "image/png")}, 422, "9000x9000"),
    ):
        answer = post(server, body)
        assert answer[0] == status, (body, answer)
        assert text in refused(answer), (body, answer)
        assert str(server.folder) not in refused(answer), answer
    assert refused(post(server, b"prompt=x", content_type="text/plain")).startswith("send JSON")
    assert refused(post(server, b"", content_type="multipart/form-data")).startswith("the form is broken")
    for form in (b"--b", b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red circ'):
        answer = post(server, form, content_type="multipart/form-data; boundary=b")
        assert (answer[0], "before its last boundary" in refused(answer)) == (400, True), form
    for charset in ("undefined", "punycode", "hex", "none"):
        kind = f"multipart/form-data; boundary=b; charset={charset}"
        form = b'--b\r\nContent-Disposition: form-data; name="width"\r\n\r\n\xff7\r\n--b--\r\n'
        assert post(server, form, content_type=kind)[0] in (400, 422), charset
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
        for kind in ("application/json", "multipart/form-data; boundary=b"):  # who has no token sends little
            assert server.ask("/session", "POST", b"x" * (1 << 17), content_type=kind)[0] == 413


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


def test_usage_errors(tmp_path, capsys):
    for arguments, text in (
        (["--largest", "big"], "--largest"),
        (["--largest", "0x0"], "--largest"),
        (["--allow-host", "http://studio.local"], "--allow-host"),
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
