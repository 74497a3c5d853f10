"""Audio VAE decoder, vocoder and bandwidth extension against the reference, stage by stage."""

from __future__ import annotations

import av
import numpy as np
import pytest
from commands import read_safetensors, write_safetensors
from compare import assert_close
from safetensors.numpy import save_file

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize


def channels_first(traced):
    """(T, 1, mel, C) or (T, C) as the graphs have it -> (C, T, mel) or (C, T)."""
    return traced[:, 0].transpose(2, 0, 1) if traced.ndim == 4 else traced.T


@pytest.fixture(scope="module")
def decoded(tiny, golden):
    """All stages of the golden's latent, decoded in one piece."""
    with tiny.trace("audio_vae.*", "vocoder.*") as traced:
        wave, rate = tiny._core.decode_audio(golden("audio")["decode.latent"], piece_seconds=0)
    return traced, wave, rate


def check(golden, name, got):
    for suffix, sample in (("", got), ("_sub3", got[..., ::3, ::3]), ("_sub5", got[..., ::5])):
        if f"{name}{suffix}" in golden:
            assert_close(name, sample, golden[f"{name}{suffix}"])
            return
    raise AssertionError(f"no golden for {name}")


@pytest.mark.device
def test_audio_vae_stages(golden, decoded):
    g, traced = golden("audio"), decoded[0]
    stages = {"conv_in": "conv_in", "mid1": "mid.block_1", "mid2": "mid.block_2"}
    stages |= {f"upsample{i}": f"up.{i}.upsample" for i in (2, 1)}
    for theirs, ours in stages.items():
        check(g, f"decode.{theirs}", channels_first(traced[f"audio_vae.decoder.{ours}"]))
    check(g, "decode.mel", channels_first(traced["audio_vae.decoder.mel"]))


@pytest.mark.device
def test_vocoder_stages(golden, decoded):
    g, traced = golden("audio"), decoded[0]
    stages = ["conv_pre", "act_post"] + [f"ups.{i}" for i in range(6)] + ["resblocks.0", "resblocks.2"]
    for ours in stages:
        theirs = ours.replace("ups.", "up").replace("resblocks.", "resblock")
        got = traced[f"vocoder.vocoder.{ours}"]
        check(g, f"vocoder.{theirs}", channels_first(got))
    check(g, "vocoder.wave_16k", np.clip(traced["vocoder.vocoder.output"].T, -1, 1))


@pytest.mark.device
def test_bandwidth_extension_stages(golden, decoded):
    g, traced = golden("audio"), decoded[0]
    check(g, "bwe.generator_conv_pre", traced["vocoder.bwe_generator.conv_pre"].T)
    check(g, "bwe.residual", traced["vocoder.bwe_generator.output"].T)


@pytest.mark.device
def test_waveform(golden, decoded):
    g = golden("audio")
    _, wave, rate = decoded
    assert rate == int(g["sampling_rate"]) == 48000
    assert_close("wave", wave, g["wave"], 1e-3)
    assert np.abs(wave).max() <= 1


@pytest.mark.by_day(0)
def test_pieces_meet_without_a_seam(tiny):
    rng = np.random.default_rng(5)
    latents = rng.standard_normal((2, 60, 16)).astype(np.float32)
    whole, _ = tiny._core.decode_audio(latents, piece_seconds=0)
    pieces, _ = tiny._core.decode_audio(latents, piece_seconds=0.7)
    assert whole.shape == pieces.shape == (2, 480 * (4 * 59 + 1))
    difference = np.abs(whole - pieces).max()
    print(f"largest difference {difference:.1e}")
    assert difference <= 1e-5


def test_prompt_to_sound(tiny, golden):
    g = golden("e2e")
    wave, _ = tiny._core.decode_audio(g["one_stage.audio_latent"])
    expected = g["one_stage.wave"]
    noise = np.mean((wave.astype(np.float64) - expected) ** 2)
    snr = 10 * np.log10(np.mean(expected.astype(np.float64) ** 2) / noise)
    print(f"SNR {snr:.1f} dB")
    assert snr >= 60


def test_wrong_latents(tiny):
    with pytest.raises(sdltx.InvalidRequestError, match=r"audio latents of \(2, frames, 16\)"):
        tiny._core.decode_audio(np.zeros((8, 3, 16), np.float32))


def read_sound(path):
    """(channels, n) samples, sample rate and the durations (s) of picture and sound."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        samples = np.concatenate([f.to_ndarray() for f in container.decode(audio)], axis=1)
        durations = float(video.duration * video.time_base), float(audio.duration * audio.time_base)
        return samples, audio.rate, durations


def test_clip_with_sound(tiny, golden, tmp_path):
    """The file's sound is the pipeline's within AAC's error, as long as the pictures, no louder."""
    latents = sdltx.Latents(golden("e2e")["one_stage.video_latent"], golden("e2e")["one_stage.audio_latent"], 24.0)
    video = tiny.decode(latents)
    assert video.sample_rate == 48000
    assert video.audio.shape == golden("e2e")["one_stage.wave"].shape
    # A chord in place of the random model's noise, which no lossy codec keeps.
    t = np.arange(video.audio.shape[1]) / 48000
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 440, 1000)) / 4
    clip = sdltx.Video(video.frames, np.stack([chord, chord[::-1]]).astype(np.float32), 48000, 24.0)
    clip.save(tmp_path / "clip.mp4")
    samples, rate, (pictures, sound) = read_sound(tmp_path / "clip.mp4")
    assert rate == 48000
    assert abs(pictures - sound) <= 1024 / 48000
    n = clip.audio.shape[1]
    correlation = np.corrcoef(samples[:, :n].ravel(), clip.audio.ravel())[0, 1]
    loudness = np.sqrt(np.mean(samples[:, :n] ** 2) / np.mean(clip.audio**2))
    print(f"correlation {correlation:.4f}, loudness {loudness:.4f}")
    assert correlation >= 0.99
    assert 0.98 <= loudness <= 1.02


def test_models_without_a_vocoder_make_silent_clips(tiny_paths, golden, tmp_path):
    source = _core.ModelFiles(tiny_paths[:1])
    arrays = {n: source.tensor(n) for n in source.names() if n.startswith("vae.")}
    save_file(arrays, tmp_path / "vae.safetensors", metadata={"config": source.metadata("config")})
    video = sdltx.load(tmp_path / "vae.safetensors").decode(
        sdltx.Latents(golden("e2e")["one_stage.video_latent"], golden("e2e")["one_stage.audio_latent"], 24.0)
    )
    assert video.audio is None
    assert video.sample_rate is None


# --- encoding ---


def test_resampling(golden):
    """Both ratios that the reference's goldens have: whole (48 kHz) and not (44.1 kHz)."""
    g = golden("audio")
    wave = g["encode.wave_16k"][:, :2400]
    for rate in (48000, 44100):
        assert_close(f"{rate}", _core.ops.resample(wave, rate, 16000), g[f"resample.{rate}"], 1e-5)
    assert np.array_equal(_core.ops.resample(wave, 16000, 16000), wave)


@pytest.mark.parametrize("rate", [8000, 22050, 32000, 44100, 96000])
def test_resampling_keeps_a_tone(rate):
    t = np.arange(rate) / rate
    wave = np.stack([np.sin(2 * np.pi * 440 * t), np.cos(2 * np.pi * 1000 * t)]).astype(np.float32)
    got = _core.ops.resample(wave, rate, 16000)
    assert got.shape == (2, 16000)
    u = np.arange(16000) / 16000
    exact = np.stack([np.sin(2 * np.pi * 440 * u), np.cos(2 * np.pi * 1000 * u)])
    assert np.abs(got - exact)[:, 200:-200].max() < 5e-3


@pytest.mark.parametrize("rates", [(0, 16000), (16000, 0), (-1, 16000), (2_000_000, 16000)])
def test_rates_beyond_reason(rates):
    with pytest.raises(sdltx.InvalidRequestError, match="out of range; use 1 to 1000000"):
        _core.ops.resample(np.zeros((2, 10), np.float32), *rates)


def test_log_mel(golden):
    g = golden("audio")
    assert_close("log mel", _core.ops.log_mel(g["encode.wave_16k"]), g["encode.log_mel"], 1e-5)


@pytest.mark.device
def test_encoder_stages(tiny, golden):
    g = golden("audio")
    with tiny.trace("audio_vae.encoder.*") as traced:
        latent = tiny.encode_audio(g["encode.wave_16k"], 16000)
    stages = {"conv_in": "conv_in", "downsample0": "down.0.downsample", "downsample1": "down.1.downsample"}
    stages |= {"mid1": "mid.block_1", "mid2": "mid.block_2", "conv_out": "conv_out"}
    for theirs, ours in stages.items():
        check(g, f"encode.{theirs}", channels_first(traced[f"audio_vae.encoder.{ours}"]))
    assert_close("latent", latent, g["encode.latent"])


def test_sound_of_any_rate_is_encoded(tiny):
    """A second is 25 latent frames, whatever the rate."""
    for rate in (16000, 44100, 48000):
        wave = np.random.default_rng(1).uniform(-0.5, 0.5, (2, rate)).astype(np.float32)
        assert tiny.encode_audio(wave, rate).shape == (2, 26, 16)


def test_sound_that_cannot_be_encoded(tiny, tiny_paths, tmp_path):
    with pytest.raises(sdltx.InvalidRequestError, match=r"expected sound of \(2 channels, samples\), got \(1, 9000\)"):
        tiny.encode_audio(np.zeros((1, 9000), np.float32), 16000)
    with pytest.raises(sdltx.InvalidRequestError, match="too short to analyse"):
        tiny.encode_audio(np.zeros((2, 500), np.float32), 16000)
    source = _core.ModelFiles(tiny_paths[:1])
    arrays = {n: source.tensor(n) for n in source.names() if not n.startswith("audio_vae.encoder.")}
    save_file(arrays, tmp_path / "m.safetensors", metadata={"config": source.metadata("config")})
    with (
        sdltx.load(tmp_path / "m.safetensors") as pipe,
        pytest.raises(sdltx.ModelMismatchError, match="not among the files: audio encoder"),
    ):
        pipe.encode_audio(np.zeros((2, 9000), np.float32), 16000)


@pytest.fixture(scope="module")
def loud(tiny_paths, tmp_path_factory):
    """The tiny model with a vocoder whose last layer is thirty times as strong."""
    header, blob = read_safetensors(tiny_paths[0])
    data = bytearray(blob)
    (name,) = (n for n in header if n.endswith("bwe_generator.conv_post.weight"))
    begin, end = header[name]["data_offsets"]
    bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
    louder = (30 * bits.view(np.float32)).astype(np.float32)
    data[begin:end] = (louder.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    path = write_safetensors(tmp_path_factory.mktemp("loud") / "loud.safetensors", header, bytes(data))
    with sdltx.load(path, tiny_paths[1], precision="f32") as pipe:
        yield pipe


def test_clipping_is_told(tiny, loud, demo, caplog):
    latents = np.random.default_rng(5).standard_normal((2, 10, 16)).astype(np.float32)
    wave, _ = loud._core.decode_audio(latents)
    clipped = np.mean(np.abs(wave) >= 1)
    assert clipped > 1e-2
    (line,) = (record.getMessage() for record in caplog.records if "clipped" in record.getMessage())
    assert f"[sound] {1000 * clipped:.0f} of 1000 samples are louder than a file can hold" in line
    caplog.clear()
    wave, _ = tiny._core.decode_audio(latents)
    assert np.mean(np.abs(wave) >= 1) < 1e-3
    assert "clipped" not in caplog.text
    demo.generate("a red circle with high beeps", width=64, height=64, num_frames=9, num_inference_steps=2, seed=1)
    assert "clipped" not in caplog.text
