"""Requests of the C ABI as JSON: the same as in Python, whatever they hold."""

from __future__ import annotations

import ctypes as c
import json

import capi
import pytest
from capi import call, free, request, text

import sdltx

CLIP = {"width": 64, "height": 64, "num_frames": 17, "seed": 3}


def test_requests_are_json():
    fields = {**CLIP, "prompt": "a fox", "guidance_scale": 3.5, "audio": 0, "sigmas": [1.0, 0.5, 0.0]}
    fields |= {
        "stg_blocks": [1],
        "loras": [("x.safetensors", 0.5)],
        "upscaler": ["u.safetensors"],
        "tiling": [64, 32, 16, 8],
    }
    told = json.loads(text("request_json", request(**fields)))
    assert told == {**fields, "audio": False, "loras": [["x.safetensors", 0.5]]}
    again = request()
    call("request_read", again, json.dumps(told).encode())
    assert json.loads(text("request_json", again)) == told
    call("request_unset", again, b"width")
    assert "width" not in json.loads(text("request_json", again))
    # Python's is the same.
    assert sdltx.Request.from_dict(told).to_dict() == told
    assert {row["name"] for row in json.loads(text("options"))} == {row["name"] for row in sdltx._core.option_table()}
    free("request", again)


def outcome(read):
    """What a request comes to, or "refused"."""
    try:
        return read()
    except (sdltx.InvalidRequestError, capi.Failed):
        return "refused"


@pytest.mark.parametrize(
    "told",
    [
        '{"prompt": "a", "seed": true}',
        '{"prompt": "a", "frame_rate": true}',
        '{"prompt": "a", "audio": 1}',
        '{"prompt": "a", "width": 512.0, "stg_blocks": [1.0, 2]}',
        '{"prompt": "a", "width": 512.5}',
        '{"prompt": "a", "frame_rate": 24}',
        '{"prompt": "a", "width": null, "negative_prompt": null}',
        '{"prompt": "a", "images": ["x"]}',
        '{"prompt": "a", "images": [{"path": "x", "frame": 8.0, "strength": 1, "crf": 0.0, "sha256": "0"}]}',
        '{"prompt": "a", "images": [{"path": "x", "frame": 1.5}]}',
        '{"prompt": "a", "images": [{"path": "x", "size": 1}]}',
        '{"prompt": "a", "images": "x"}',
        '{"prompt": "a", "upscaler": "u", "loras": ["l", ["m", 0.5]]}',
        '{"prompt": "a", "loras": "l"}',
        '{"prompt": "a", "loras": [["l", true]]}',
        '{"prompt": "a", "sigmas": [1, 0.5, 0]}',
        '{"prompt": "a", "sigmas": 1}',
        '{"prompt": "a", "upscalers": ["u"], "device": "cpu", "passes": 2, "model_files": [], "sdltx_version": "0"}',
        '{"prompt": "a", "upscalers": ["u"], "upscaler": "v"}',
        '{"prompt": "a", "noise": true}',
        '{"prompt": "a", "initial": false}',
        '{"prompt": "a", "wdith": 3}',
        '{"prompt": 3}',
        '{"prompt": "a", "tiling": [64, 32, 16, 8]}',
        "[]",
    ],
)
def test_requests_as_text_are_the_same_in_python(told):
    def in_c():
        handle = request()
        call("request_read", handle, told.encode())
        found = json.loads(text("request_json", handle))
        for one in found.get("images", ()):
            one.update({"crf": one.get("crf")})
        return found

    def in_python():
        return sdltx.Request.from_dict(json.loads(told)).to_dict()

    assert outcome(in_c) == outcome(in_python)


@pytest.mark.parametrize("told", [b"", b'{"prompt": ', b"[" * 1000, b'{"a": NaN}'])
def test_texts_that_are_no_requests(told):
    with pytest.raises(capi.Failed, match=r"^\[request\] is (not valid JSON at byte|nested)") as failed:
        call("request_read", request(), told)
    assert "file" not in str(failed.value)
    assert failed.value.status == capi.INVALID


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_no_text_tells_are_refused(value):
    blank = request()
    for set_it in (
        lambda: request(guidance_scale=value),
        lambda: request(sigmas=[1.0, value]),
        lambda: request(loras=[["x", value]]),
        lambda: call("request_add_image", blank, b"abc", c.c_int64(1), c.c_int64(1), c.c_int64(0), c.c_double(value)),
    ):
        with pytest.raises(capi.Failed, match="finite"):
            set_it()
    assert json.loads(text("request_json", blank)) == {}
