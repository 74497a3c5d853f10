"""Sound and pictures of files as people have them, and what of them stays as it is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from films import RATE, film, wave

import sdltx
from sdltx import _readers, media


def test_sound_of_files(tmp_path):
    given = wave(1)
    sdltx.sound.write(tmp_path / "s.wav", given, RATE, sample_format="f32")
    samples, rate = media.read_audio(tmp_path / "s.wav", start=0.1, duration=0.5)
    assert rate == RATE and samples.shape == (2, round(0.5 * RATE))
    assert np.array_equal(samples, given[:, round(0.1 * RATE) :][:, : samples.shape[1]])
    sdltx.sound.write(tmp_path / "m.wav", given[:1], RATE)
    mono, _ = media.read_audio(tmp_path / "m.wav")
    assert np.array_equal(mono[0], mono[1])
    film().save(tmp_path / "a.mp4")
    coded, _ = media.read_audio(tmp_path / "a.mp4")
    n = 30_000
    assert np.abs(coded[:, 3000:n] - wave(33 / 24)[:, 3000:n]).mean() < 0.02  # AAC begins where it was
    with pytest.raises(sdltx.InvalidRequestError, match="no sound at 5 s"):
        media.read_audio(tmp_path / "s.wav", start=5)


def test_pictures_of_files(tmp_path):
    ramp = np.zeros((25, 64, 96, 3), np.uint8)
    ramp += (np.arange(25, dtype=np.uint8) * 10)[:, None, None, None]
    ramp[..., 1] = np.linspace(0, 255, 96).astype(np.uint8)
    sdltx.Video(ramp, frame_rate=24).save(tmp_path / "a.mp4")
    frames, rate = media.read_video(tmp_path / "a.mp4")
    assert rate == 24 and frames.shape == ramp.shape
    assert np.abs(frames.astype(int) - ramp).mean() < 2.5
    some, _ = media.read_video(tmp_path / "a.mp4", start=0.25, duration=0.25)
    assert np.array_equal(some, frames[6:12])
    half, rate = media.read_video(tmp_path / "a.mp4", frame_rate=12)
    assert rate == 12 and np.array_equal(half, frames[::2])
    sdltx.Video(ramp, frame_rate=Fraction(30000, 1001)).save(tmp_path / "b.mp4")
    assert media.read_video(tmp_path / "b.mp4")[1] == pytest.approx(29.97, abs=1e-3)


def written(path, frames, **about):
    """A film by PyAV, with what files may say of their pictures."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = about.pop("pix_fmt", "yuv420p")
        if (times := about.pop("times", None)) is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in about.items():
            setattr(stream.codec_context, name, value)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=stream.pix_fmt,
                dst_colorspace=about.get("colorspace"),
                dst_color_range=about.get("color_range"),
            )
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_matrix_and_range_of_colours(tmp_path):
    """All four ways to store the same colours come out as the same."""
    picture = np.zeros((4, 64, 96, 3), np.uint8)
    picture[:, :, :32], picture[:, :, 32:64], picture[:, :, 64:] = (200, 30, 40), (20, 180, 60), (30, 40, 210)
    for matrix in (1, 5):
        for extent in (1, 2):
            path = tmp_path / f"{matrix}{extent}.mp4"
            written(path, picture, colorspace=matrix, color_range=extent)
            frames, _ = media.read_video(path)
            assert np.abs(frames[:, 8:-8, 8:24].astype(int) - picture[:, 8:-8, 8:24]).max() <= 6, (matrix, extent)
            assert np.abs(frames[:, 8:-8, 72:88].astype(int) - picture[:, 8:-8, 72:88]).max() <= 6, (matrix, extent)


def test_hdr_is_refused(tmp_path):
    written(tmp_path / "h.mp4", np.zeros((4, 64, 96, 3), np.uint8), color_trc=16, color_primaries=9, colorspace=9)
    with pytest.raises(sdltx.InvalidRequestError, match=r"HDR \(PQ\)"):
        media.read_video(tmp_path / "h.mp4")


def test_pictures_at_uneven_distances(tmp_path):
    """A picture is seen until the next one's time."""
    ramp = np.zeros((4, 64, 96, 3), np.uint8) + np.array([0, 60, 120, 180], np.uint8)[:, None, None, None]
    written(tmp_path / "v.mkv", ramp, times=[0, 100, 400, 500])
    frames, _ = media.read_video(tmp_path / "v.mkv", frame_rate=10)
    assert [round(picture.mean() / 60) for picture in frames[:6]] == [0, 1, 1, 1, 2, 3]


def test_gaps_in_sound_are_silence(tmp_path):
    import av

    tone = np.full((2, 4800), 0.25, np.float32)
    with av.open(str(tmp_path / "g.mkv"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=48000, layout="stereo")
        for start in (0, 0.1, 0.2, 0.9, 1.0):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone.T).reshape(1, -1), format="flt", layout="stereo"
            )
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), round(start * 48000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, rate = media.read_audio(tmp_path / "g.mkv")
    assert samples.shape == (2, round(1.1 * rate))
    loud = samples[0] > 0.1
    assert loud[: round(0.29 * rate)].all() and loud[round(0.91 * rate) :].all()
    assert not loud[round(0.31 * rate) : round(0.89 * rate)].any()
    later, _ = media.read_audio(tmp_path / "g.mkv", start=0.85, duration=0.1)
    assert (later[0] > 0.1).sum() == pytest.approx(0.05 * rate, abs=2)


def test_sixteen_bits_stay_as_they_are(tmp_path):
    """All of their values come out of a file as they went in."""
    values = np.arange(-32768, 32768, dtype=np.int16)
    sdltx.sound.write(tmp_path / "a.wav", np.stack([values, values[::-1]]), 48000)
    samples, _ = media.read_audio(tmp_path / "a.wav")
    assert np.array_equal(samples * 32768, np.stack([values, values[::-1]]))
    sdltx.sound.write(tmp_path / "b.wav", samples, 48000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("rate", [11111, 192_000, 8000])
def test_rates_that_a_codec_does_not_know(tmp_path, rate):
    clip = sdltx.Video(film(24, sound=False).frames, wave(1, rate), rate, 24)
    clip.save(tmp_path / "a.mp4")
    samples, of_file = media.read_audio(tmp_path / "a.mp4")
    assert samples.shape[1] / of_file == pytest.approx(1, abs=0.06)


def test_films_that_do_not_fit_in_memory(monkeypatch, tmp_path):
    """Told while they are read, before the system ends the process."""
    sdltx.Video(np.zeros((17, 64, 64, 3), np.uint8), frame_rate=8).save(tmp_path / "film.mp4")
    monkeypatch.setattr(_readers, "_MUCH", 4 * 64 * 64 * 3)
    assert len(_readers.read_frames(tmp_path / "film.mp4")[0]) == 17
    monkeypatch.setattr(_readers._core, "devices", lambda: [{"kind": "cpu", "memory_free": 10 * 64 * 64 * 3}])
    with pytest.raises(sdltx.OutOfMemoryError, match=r"film\.mp4: the pictures of its first 2 s"):
        _readers.read_frames(tmp_path / "film.mp4")
