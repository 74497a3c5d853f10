"""Clips in two stages, recipes, LoRAs and durations through the C ABI: bit-equal to Python's."""

from __future__ import annotations

import ctypes as c
import json
from pathlib import Path

import capi
import ltx25
import numpy as np
import pytest
from capi import call, free, load, made, pair, request, text

import sdltx


def test_two_stages(tiny_paths, tiny):
    handle = load(*tiny_paths, precision=1)
    upscaler = Path(tiny_paths[0]).parent / "tiny-spatial-upscaler-x2.safetensors"
    size = {"width": 128, "height": 64, "num_frames": 9, "seed": 5, "preset": "distilled"}
    context = made("encode", handle, b"x", None, None)
    asked = request(**size, upscaler=[upscaler])
    both = made("sample", handle, context, None, asked, None)
    expected = tiny.sample(tiny.encode("x"), **size, upscaler=upscaler)
    small = made("sample", handle, context, None, request(**{**size, "width": 64, "height": 32}), None)
    large = made("upsample", handle, small, str(upscaler).encode())
    asked = request(**size, sigmas=[0.909375, 0.725, 0.421875, 0], initial=large)
    fine = made("sample", handle, context, None, asked, None)
    for latents in (both, fine):
        video, audio = pair("latents", latents, None)
        np.testing.assert_array_equal(video, expected.video)
        np.testing.assert_array_equal(audio, expected.audio)
    for one in (both, small, large, fine):
        free("latents", one)
    with pytest.raises(capi.Failed, match="does not exist"):
        request(**size, initial=large)  # freed
    free("context", context)
    free("pipeline", handle)


def test_recipes(tiny_paths, tiny):
    assert json.loads(text("recipes")) == sdltx.recipes()
    handle = load(*tiny_paths, precision=1)
    folder = Path(tiny_paths[0]).parent
    upscaler, lora = folder / "tiny-spatial-upscaler-x2.safetensors", folder / "tiny-lora.safetensors"
    size = {"width": 128, "height": 64, "num_frames": 9, "seed": 5, "num_inference_steps": 1}
    asked = request(**size, upscaler=[upscaler], recipe="hq", distilled_lora=lora)
    same = {**size, "recipe": "hq", "upscaler": upscaler, "distilled_lora": lora}
    told, expected = json.loads(text("resolve", handle, asked)), tiny.resolve(**same)
    assert {
        **told,
        "stages": [{**stage, "loras": [tuple(one) for one in stage["loras"]]} for stage in told["stages"]],
    } == expected
    context = made("encode", handle, b"x", None, None)
    latents = made("sample", handle, context, None, asked, None)
    expected = tiny.sample(tiny.encode("x"), **same)
    video, audio = pair("latents", latents, None)
    np.testing.assert_array_equal(video, expected.video)
    np.testing.assert_array_equal(audio, expected.audio)
    assert json.loads(text("estimate", handle, asked)) == tiny.estimate(**same)
    for fields, line in (
        ({"recipe": b"fast"}, "no recipe 'fast'"),
        ({"recipe": b"keyframes", "distilled_lora": str(lora).encode()}, "keyframes needs a spatial upscaler"),
    ):
        for call_ in (
            lambda r: made("resolve", handle, r),
            lambda r: made("generate", handle, r, capi.BOTH, None, None),
        ):
            with pytest.raises(capi.Failed, match=line):
                call_(request(prompt="x", **size, **fields))
    free("latents", latents)
    free("context", context)
    free("pipeline", handle)


def test_loras(tiny_paths, tiny):
    handle = load(*tiny_paths, precision=1)
    path = str(Path(tiny_paths[0]).parent / "tiny-lora.safetensors").encode()
    size = {"width": 64, "height": 64, "num_frames": 9, "seed": 5, "num_inference_steps": 1, "preset": "distilled"}
    context = made("encode", handle, b"x", None, None)
    asked = request(prompt="x", **size, loras=[(path, 0.5), (path, 0.25)])
    latents = made("sample", handle, context, None, asked, None)
    expected = tiny.sample(tiny.encode("x"), **size, loras=[(path.decode(), 0.5), (path.decode(), 0.25)])
    np.testing.assert_array_equal(pair("latents", latents, None)[0], expected.video)
    with pytest.raises(capi.Failed, match=r"path. is NULL"):
        capi.call("request_add_lora", asked, b"loras", None, c.c_double(1))
    asked = request(prompt="x", **size, loras=[(b"missing", 1.0)])
    calls = {"sample": (context, None, asked, None), "generate": (asked, capi.BOTH, None, None)}
    for name, arguments in calls.items():
        with pytest.raises(capi.Failed, match="missing"):
            made(name, handle, *arguments)
    free("latents", latents)
    free("context", context)
    free("pipeline", handle)


def test_duration():
    paths = [*ltx25.PARTS_OF_A_CLIP, ltx25.file("duration_head")]
    with sdltx.load(*paths) as pipe:
        want = pipe.duration(pipe.encode("a red circle moves left"))
    handle = load(*paths)
    context = made("encode", handle, b"a red circle moves left", None, None)
    seconds = c.c_double(-1)
    call("duration", handle, context, c.byref(seconds))
    assert seconds.value == want
    free("context", context)
    free("pipeline", handle)


def test_duration_without_a_head(tiny_paths):
    handle = load(*tiny_paths)
    context = made("encode", handle, b"x", None, None)
    seconds = c.c_double(-1)
    with pytest.raises(capi.Failed) as failed:
        call("duration", handle, context, c.byref(seconds))
    assert failed.value.status == 2
    assert seconds.value == 0
    free("context", context)
    free("pipeline", handle)
