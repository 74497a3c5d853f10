"""What programs in Python give and get: numbers of any kind, callbacks, blocks, folders."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import sdltx


def test_integers_for_sound(tiny, tmp_path):
    rng = np.random.default_rng(0)
    sound = np.clip(rng.normal(0, 0.1, (2, 24000)), -1, 1).astype(np.float32)
    want = tiny.encode_audio(sound, 48000)
    for kind, scale in ((np.int16, 2**15), (np.int32, 2**31)):
        got = tiny.encode_audio((sound.astype(np.float64) * scale).astype(kind), 48000)
        assert np.sqrt(((got - want) ** 2).mean() / (want**2).mean()) < 1e-2
    sixteen = np.round(sound * 32767).astype(np.int16)
    frames = np.zeros((12, 32, 32, 3), np.uint8)
    sdltx.Video(frames, sixteen, 48000, 24).save(tmp_path / "x.wav")
    import av

    with av.open(str(tmp_path / "x.wav")) as container:
        read = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1).reshape(-1, 2).T
    assert np.abs(read[:, :24000].astype(int) - sixteen).max() <= 2
    for bad in (sixteen.astype(np.uint8), sixteen.astype(np.int64), sixteen[0]):
        with pytest.raises(sdltx.InvalidRequestError, match="float32, int16 or int32"):
            tiny.encode_audio(bad, 48000)
    sound[0, 5] = np.nan
    with pytest.raises(sdltx.InvalidRequestError, match="not finite"):
        tiny.encode_audio(sound, 48000)
    for rate in (0, -1, 2**40, 1_000_001):
        with pytest.raises(sdltx.InvalidRequestError, match="out of range"):
            tiny.encode_audio(sixteen, rate)


def test_floats_that_are_integers_are_told(tiny, caplog):
    tiny.encode_audio(np.full((2, 24000), 20_000, np.float32), 48000)
    assert "goes up to 20000 where 1 is the loudest" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": np.full((1, 2, 2, 3), 300, np.uint16)},
        {"frames": np.zeros((1, 2, 2, 3), np.int8)},
        {"audio": np.zeros((2, 5), np.float32)},
        {"audio": np.zeros((2, 5), np.float32), "sample_rate": 0},
        {"sample_rate": "x"},
        {"frame_rate": 0},
        {"frame_rate": "x"},
        {"frame_rate": float("nan")},
        {"metadata": 5},
    ],
)
def test_what_is_no_video(fields):
    with pytest.raises(sdltx.InvalidRequestError):
        sdltx.Video(**{"frames": np.zeros((1, 2, 2, 3), np.uint8), **fields})


def test_rates_that_are_fractions():
    from fractions import Fraction

    video = sdltx.Video(np.zeros((1, 2, 2, 3), np.uint8), frame_rate=Fraction(24000, 1001))
    assert "23.976 fps" in repr(video)


@pytest.mark.parametrize("progress", [5, "x", []])
def test_callbacks_that_cannot_be_called(tiny, progress):
    latents = tiny.sample(tiny.encode("x"), width=32, height=32, num_frames=1, num_inference_steps=1, seed=1)
    calls = [
        lambda: sdltx.load(progress=progress),
        lambda: tiny.encode("x", progress=progress),
        lambda: tiny.sample(tiny.encode("x"), progress=progress),
        lambda: tiny.sample(tiny.encode("x"), on_step=progress),
        lambda: tiny.generate("x", progress=progress),
        lambda: tiny.decode(latents, progress=progress),
        lambda: tiny.decode_audio(latents, progress=progress),
        lambda: tiny.encode_video(np.zeros((1, 32, 32, 3), np.uint8), progress=progress),
        lambda: tiny.upsample(latents, "x", progress=progress),
    ]
    for call in calls:
        with pytest.raises(sdltx.InvalidRequestError, match="expected a function"):
            call()


def test_pictures_can_be_compared():
    image = np.zeros((2, 2, 3), np.uint8)
    one, other = sdltx.Condition(image), sdltx.Condition(image)
    assert one == one and one != other
    assert len({one, other}) == 2


def test_blocks_that_no_model_has(tiny):
    with pytest.raises(sdltx.InvalidRequestError, match=r"stg_blocks .* is out of range"):
        tiny.resolve(stg_blocks=[2**40])


def test_a_folder_without_a_slash(tiny_paths, tmp_path):
    """A Path has none at its end."""
    files = sdltx.convert(tiny_paths[0], output=tmp_path / "q8", type="q8_0")
    assert {file.parent for file in files} == {tmp_path / "q8"}
    with pytest.raises(sdltx.InvalidRequestError, match=r"none of \.gguf, \.safetensors"):
        sdltx.convert(tiny_paths[0], output=tmp_path / "x.bin", type="q8_0")


def test_modules_are_found():
    code = "import sdltx; print({'media', 'preview', 'sound'} <= set(dir(sdltx)), sdltx.preview.fit, sdltx.sound.write)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("True"), done.stderr


def test_after_closing(tiny_paths):
    pipe = sdltx.load(*tiny_paths)
    pipe.close()
    for call in (pipe.resolve, pipe.doubts, pipe.upscalers, pipe.estimate):
        with pytest.raises(sdltx.InvalidRequestError, match="it is closed"):
            call()
    assert "LTX-2.3" in repr(pipe)
