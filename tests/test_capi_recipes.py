"""Clips in two stages, recipes and LoRAs through the C ABI: bit-equal to Python's."""

from __future__ import annotations

import ctypes as c
import json
from pathlib import Path

import capi
import numpy as np
import pytest
from capi import free, load, made, options, pair, text

import sdltx


def test_two_stages(tiny_paths, tiny):
    handle = load(*tiny_paths, precision=1)
    upscaler = Path(tiny_paths[0]).parent / "tiny-spatial-upscaler-x2.safetensors"
    size = {"width": 128, "height": 64, "num_frames": 9, "seed": 5, "preset": "distilled"}
    context = made("encode", handle, b"x", None, None)
    files = capi.strings(upscaler)
    request = options("sample", **size, num_upscalers=1)
    request.upscalers = c.addressof(files)
    both = made("sample", handle, context, None, c.byref(request))
    expected = tiny.sample(tiny.encode("x"), **size, upscaler=upscaler)
    small = made("sample", handle, context, None, c.byref(options("sample", **{**size, "width": 64, "height": 32})))
    large = made("upsample", handle, small, str(upscaler).encode())
    sigmas = (c.c_float * 4)(0.909375, 0.725, 0.421875, 0)
    request = options("sample", **size, num_sigmas=4, initial=large.value)
    request.sigmas = c.addressof(sigmas)
    fine = made("sample", handle, context, None, c.byref(request))
    for latents in (both, fine):
        video, audio = pair("latents", latents, None)
        np.testing.assert_array_equal(video, expected.video)
        np.testing.assert_array_equal(audio, expected.audio)
    for one in (both, small, large, fine):
        free("latents", one)
    request = options("sample", **size, initial=large.value)  # freed
    with pytest.raises(capi.Failed, match="does not exist"):
        made("sample", handle, context, None, c.byref(request))
    free("context", context)
    free("pipeline", handle)


def test_recipes(tiny_paths, tiny):
    assert json.loads(text("recipes")) == sdltx.recipes()
    handle = load(*tiny_paths, precision=1)
    folder = Path(tiny_paths[0]).parent
    upscaler, lora = folder / "tiny-spatial-upscaler-x2.safetensors", folder / "tiny-lora.safetensors"
    size = {"width": 128, "height": 64, "num_frames": 9, "seed": 5, "num_inference_steps": 1}
    files = capi.strings(upscaler)
    request = options("sample", **size, num_upscalers=1, recipe=b"hq", distilled_lora=str(lora).encode())
    request.upscalers = c.addressof(files)
    same = {**size, "recipe": "hq", "upscaler": upscaler, "distilled_lora": lora}
    told, expected = json.loads(text("resolve", handle, c.byref(request))), tiny.resolve(**same)
    assert {
        **told,
        "stages": [{**stage, "loras": [tuple(one) for one in stage["loras"]]} for stage in told["stages"]],
    } == expected
    context = made("encode", handle, b"x", None, None)
    latents = made("sample", handle, context, None, c.byref(request))
    expected = tiny.sample(tiny.encode("x"), **same)
    video, audio = pair("latents", latents, None)
    np.testing.assert_array_equal(video, expected.video)
    np.testing.assert_array_equal(audio, expected.audio)
    assert json.loads(text("estimate", handle, c.byref(request), None)) == tiny.estimate(**same)
    for fields, line in (
        ({"recipe": b"fast"}, "no recipe 'fast'"),
        ({"recipe": b"keyframes", "distilled_lora": str(lora).encode()}, "keyframes needs a spatial upscaler"),
    ):
        for call_ in (
            lambda r: made("resolve", handle, r),
            lambda r: made("generate", handle, b"x", None, r, None, None),
        ):
            with pytest.raises(capi.Failed, match=line):
                call_(c.byref(options("sample", **size, **fields)))
    free("latents", latents)
    free("context", context)
    free("pipeline", handle)


def test_loras(tiny_paths, tiny):
    handle = load(*tiny_paths, precision=1)
    path = str(Path(tiny_paths[0]).parent / "tiny-lora.safetensors").encode()
    size = {"width": 64, "height": 64, "num_frames": 9, "seed": 5, "num_inference_steps": 1, "preset": "distilled"}
    context = made("encode", handle, b"x", None, None)
    structure = capi.structure("sdltx_lora")
    loras = (structure * 2)(structure(path, 0.5), structure(path, 0.25))
    request = options("sample", **size, num_loras=2)
    request.loras = c.addressof(loras)
    latents = made("sample", handle, context, None, c.byref(request))
    expected = tiny.sample(tiny.encode("x"), **size, loras=[(path.decode(), 0.5), (path.decode(), 0.25)])
    np.testing.assert_array_equal(pair("latents", latents, None)[0], expected.video)
    for changed, line in ((structure(None, 1.0), "path of a LoRA. is NULL"), (structure(b"missing", 1.0), "missing")):
        loras[1] = changed
        calls = {"sample": (context, None, c.byref(request)), "generate": (b"x", None, c.byref(request), None, None)}
        for name, arguments in calls.items():
            with pytest.raises(capi.Failed, match=line):
                made(name, handle, *arguments)
    free("latents", latents)
    free("context", context)
    free("pipeline", handle)
