"""Clips without sound, sound without pictures, and sound beside a clip."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest
from commands import TINY_CLIP, errors, generate, names, run

import sdltx
from sdltx import media, sound
from sdltx._files import Source

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 1}


def read(path):
    """Samples (channels, n) as floats and the rate, read by FFmpeg."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        parts = [frame.to_ndarray().reshape(-1, stream.channels).T for frame in container.decode(stream)]
        samples = np.concatenate(parts, axis=1)
        return (samples / 32768 if samples.dtype == np.int16 else samples), stream.rate


# --- no sound ---


def test_video_alone_skips_the_audio_stream(tiny):
    """An official mode: as the reference's call without audio. Nothing of the sound is computed."""
    with tiny.trace("*") as traced:
        latents = tiny.sample(tiny.encode("a red ball"), audio=False, preset="distilled", **SMALL)
    assert latents.audio is None
    assert latents.settings["audio"] is False
    assert not [name for name in traced if "audio_" in name and "connector" not in name and "features" not in name]
    assert tiny.decode(latents).audio is None
    with_sound = tiny.sample(tiny.encode("a red ball"), preset="distilled", **SMALL)
    assert not np.array_equal(latents.video, with_sound.video)


@pytest.mark.parametrize("sampler", ["euler", "gradient_estimation", "euler_ancestral", "res_2s"])
def test_video_alone_with_guidance(tiny, sampler):
    """Nothing is isolated from sound that is not there."""
    options = {**SMALL, "audio": False, "sampler": sampler}
    assert tiny.resolve(**options)["passes"] == 3
    latents = tiny.sample(tiny.encode("a red ball"), **options)
    assert latents.audio is None
    assert np.isfinite(latents.video).all()


def test_no_audio_on_the_command_line(tmp_path):
    done = generate("--no-audio", "-o", tmp_path / "a.mp4", "--save-latents", tmp_path / "l.safetensors")
    assert done.returncode == 0, done.stderr
    assert sdltx.Latents.load(tmp_path / "l.safetensors").audio is None
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio
    again = run("generate", "--from", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("flags", [["-o", "x.wav"], ["-o", "x.mp4", "--audio-out", "y.wav"]])
def test_no_audio_contradicts_sound(tmp_path, flags):
    flags = [str(tmp_path / flag) if "." in flag else flag for flag in flags]
    done = generate("--no-audio", *flags)
    assert done.returncode == 2
    wav = next(flag for flag in flags if flag.endswith(".wav"))
    assert errors(done) == [f"error: [output] --no-audio leaves no sound, so there is none for {wav}; leave it out"]
    assert not names(tmp_path)


# --- sound alone ---


@pytest.mark.parametrize("sample_format", ["s16", "f32"])
def test_wav_files(tmp_path, sample_format):
    """Read back by FFmpeg and, integers, by Python's own reader."""
    rng = np.random.default_rng(1)
    samples = rng.uniform(-1, 1, (2, 1000)).astype(np.float32)
    samples[:, :2] = [[1, -1], [-1, 1]]
    path = tmp_path / "x.wav"
    sound.write(path, samples, 48000, sample_format=sample_format, metadata={"sdltx_version": "1", "prompt": "ä"})
    got, rate = read(path)
    assert (got.shape, rate) == (samples.shape, 48000)
    if sample_format == "f32":
        assert np.array_equal(got, samples)
    else:
        assert np.abs(got * 32768 - np.clip(np.rint(samples * 32768), -32768, 32767)).max() == 0
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getframerate(), file.getsampwidth(), file.getnframes()) == (
                2,
                48000,
                2,
                1000,
            )
    assert media.read_settings(path)["prompt"] == "ä"


def test_sound_alone_decodes_no_picture(tmp_path, saved):
    """The same sound as in the clip, from generate and from decode; and as long as the pictures."""
    done = generate("-o", tmp_path / "a.wav", "--wav-format", "f32", "-v")
    assert done.returncode == 0, done.stderr
    assert "decode took" not in done.stderr
    assert names(tmp_path) == ["a.wav"]
    done = run("decode", saved, "-o", tmp_path / "b.wav", "--wav-format", "f32")
    assert done.returncode == 0, done.stderr
    (a, rate), (b, _) = read(tmp_path / "a.wav"), read(tmp_path / "b.wav")
    assert np.array_equal(a, b)
    with sdltx.load() as pipe:
        latents = sdltx.Latents.load(saved)
        exact, _ = pipe.decode_audio(latents)
    n = round(9 / latents.frame_rate * rate)
    assert a.shape == (2, n)
    assert np.array_equal(a[:, : min(n, exact.shape[1])], exact[:, :n])
    done = run("generate", "--from", tmp_path / "a.wav", "--dry-run")
    assert "seed    1" in done.stdout


@pytest.mark.parametrize("clip", ["a.mp4", "a.gif"])
def test_sound_beside_a_clip(tmp_path, clip):
    done = generate("-o", tmp_path / clip, "--audio-out", tmp_path / "s.wav")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == [clip, "s.wav"]
    samples, _ = read(tmp_path / "s.wav")
    assert np.abs(samples).max() > 0.01


def test_only_the_sound_of_a_video(tmp_path, demo):
    video = demo.generate("a red circle with high beeps", **SMALL)
    video.save(tmp_path / "x.wav")
    samples, rate = read(tmp_path / "x.wav")
    assert (rate, samples.shape[1]) == (48000, round(9 / video.frame_rate * 48000))
    silent = sdltx.Video(video.frames)
    with pytest.raises(sdltx.InvalidRequestError, match="has no sound for"):
        silent.save(tmp_path / "y.wav")
    assert names(tmp_path) == ["x.wav"]


def test_bad_requests(tmp_path):
    done = generate("-o", tmp_path / "a.mp4", "--audio-out", tmp_path / "b.mp3")
    assert "must end in .wav" in errors(done)[0]
    done = generate("-o", tmp_path / "a.wav", "--audio-out", tmp_path / "a.wav")
    assert "both write" in errors(done)[0]
    with pytest.raises(sdltx.InvalidRequestError, match="holds sound alone"):
        media.VideoWriter(tmp_path / "x.wav", 24)
    with pytest.raises(sdltx.InvalidRequestError, match="expected sound"):
        sound.write(tmp_path / "x.wav", np.zeros(5, np.float32), 48000)
    with pytest.raises(sdltx.InvalidRequestError, match="sample_format"):
        sound.write(tmp_path / "x.wav", np.zeros((1, 5), np.float32), 48000, sample_format="s8")
    assert not names(tmp_path)


def test_a_model_without_a_vocoder(tmp_path, tiny_paths, saved):
    from commands import read_safetensors, write_safetensors

    header, blob = read_safetensors(tiny_paths[0])
    kept = {name: entry for name, entry in header.items() if not name.startswith("vocoder.")}
    path = write_safetensors(tmp_path / "m.safetensors", kept, blob)
    done = run("generate", "-p", "x", *TINY_CLIP, "-m", path, "-m", tiny_paths[1], "-o", tmp_path / "x.wav")
    assert done.returncode == 4
    assert "not among the files: vocoder" in errors(done)[0]


def test_places_that_a_file_does_not_have(tmp_path):
    """PyAV writes a traceback to the standard error where seeking raises while another exception is on its way."""
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    with Source(path) as file:
        assert [file.seek(*to) for to in ((-1,), (2**70,), (-9, 2), (-1, 1), (3,), (2**40,))] == [
            -1,
            -1,
            -1,
            -1,
            3,
            2**40,
        ]
        assert file.seek(3) == 3
        assert file.read() == b"def"
