"""Clips on disk, read back with PyAV and Pillow."""

import os
import resource
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import sdltx
from sdltx import media
from sdltx._encoders import ContainerFormat

SETTINGS = {
    "sdltx_version": "0",
    "prompt": 'Zwölf "Boxkämpfer"\n\tjagen 維 \N{OCTOPUS} \0 %d </x>' + " sehr" * 2000,
    "seed": 2**63 - 1,
    "frame_rate": 23.976,
    "sigmas": [1.0, 0.1, 0.0],
    "num_inference_steps": None,
}
SUFFIXES = [".mp4", ".webm", ".gif", ".webp", ".png"]


def moving_square(count=25, height=64, width=96):
    """A green square on red that moves two pixels to the right in every frame."""
    frames = np.full((count, height, width, 3), (200, 30, 60), np.uint8)
    for i, frame in enumerate(frames):
        frame[16:48, 2 * i : 2 * i + 32] = (20, 220, 40)
    return frames


def write(path, frames, rate=24, **options):
    with media.VideoWriter(path, rate, **options) as writer:
        writer.write_frames(frames)


def video_frames(path):
    with av.open(str(path)) as container:
        # Older versions of PyAV do not look at the tags, nor at colours that are the same on both sides.
        frames = [
            frame.reformat(format="rgb24", src_colorspace=1, dst_colorspace=5) for frame in container.decode(video=0)
        ]
        return np.stack([frame.to_ndarray() for frame in frames])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (24, Fraction(24)),
        (24.0, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        (12.5, Fraction(25, 2)),
        (25 / 3, Fraction(25, 3)),
        (4, Fraction(4)),
        (23.9, Fraction(239, 10)),
    ],
)
def test_exact_frame_rate(given, exact):
    assert media.exact_frame_rate(given) == exact


@pytest.mark.parametrize("rate", [0, -24, float("nan"), float("inf"), 1001])
def test_frame_rate_out_of_range(rate, tmp_path):
    with pytest.raises(sdltx.InvalidRequestError, match="frame rate"):
        media.VideoWriter(tmp_path / "clip.mp4", rate)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("rate", [24, 23.976, 12.5])
def test_video_file(suffix, rate, tmp_path):
    path = tmp_path / f"clip{suffix}"
    frames = moving_square()
    write(path, frames, rate)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert context.name == {".mp4": "h264", ".webm": "vp9"}[suffix]
        assert (context.width, context.height, context.pix_fmt) == (96, 64, "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert abs(stream.average_rate - media.exact_frame_rate(rate)) < (1e-3 if suffix == ".webm" else 1e-9)
        assert not container.streams.audio
    decoded = video_frames(path)
    assert decoded.shape == frames.shape
    flat = np.abs(decoded.astype(int) - frames)[:, 2:14]  # away from the edges, which 4:2:0 softens
    assert flat.max() <= 8
    assert np.abs(decoded.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("rate", [48000, 44100])
@pytest.mark.parametrize("audio_first", [True, False])
def test_sound(suffix, rate, audio_first, tmp_path):
    path = tmp_path / f"clip{suffix}"
    frames = moving_square(24)
    time = np.arange(rate) / rate
    tone = np.stack([0.5 * np.sin(2 * np.pi * 440 * time), 0.25 * np.sin(2 * np.pi * 1000 * time)]).astype(np.float32)
    with media.VideoWriter(path, 24, audio_rate=rate) as writer:
        if not audio_first:
            writer.write_frames(frames)
        for start in range(0, rate, 7000):
            writer.write_audio(tone[:, start : start + 7000])
        if audio_first:
            writer.write_frames(frames)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == {".mp4": "aac", ".webm": "opus"}[suffix]
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
        heard_rate = stream.rate
    assert len(video_frames(path)) == 24
    assert heard.shape[0] == 2
    assert abs(heard.shape[1] / heard_rate - 1) < 0.05
    for channel, (frequency, amplitude) in enumerate([(440, 0.5), (1000, 0.25)]):
        middle = heard[channel, heard_rate // 4 :][: heard_rate // 2]
        spectrum = np.abs(np.fft.rfft(middle)) / len(middle) * 2
        assert abs(np.argmax(spectrum) * 2 - frequency) <= 2
        assert abs(spectrum.max() - amplitude) < 0.05


def test_mono_and_silent(tmp_path):
    samples = np.zeros((1, 48000), np.float32)
    with media.VideoWriter(tmp_path / "mono.mp4", 24, audio_rate=48000) as writer:
        writer.write_frames(moving_square(24))
        writer.write_audio(samples)
    with av.open(str(tmp_path / "mono.mp4")) as container:
        assert container.streams.audio[0].channels == 2
    with pytest.raises(sdltx.InvalidRequestError, match="silent"), media.VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write_frames(moving_square(2))
        writer.write_audio(samples)
    assert names(tmp_path) == ["mono.mp4"]


@pytest.mark.parametrize(("suffix", "tick"), [(".gif", 10), (".webp", 1)])
@pytest.mark.parametrize("rate", [12, 24, 23.976])
def test_animated_picture(suffix, tick, rate, tmp_path):
    path = tmp_path / f"clip{suffix}"
    frames = moving_square()
    write(path, frames, rate)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (25, (96, 64), 0)
        ends = []
        for i in range(25):
            picture.seek(i)
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(shown - frames[i]).mean() < 4
            ends.append((ends[-1] if ends else 0) + picture.info["duration"])
    exact = [(i + 1) / media.exact_frame_rate(rate) * 1000 for i in range(25)]
    assert max(abs(end - when) for end, when in zip(ends, exact, strict=True)) <= tick / 2


def test_picture_sequence(tmp_path):
    frames = moving_square(3)
    write(tmp_path / "plain.png", frames)
    write(tmp_path / "p_%03d_x.png", frames)
    write(tmp_path / "single.png", frames[:1])
    assert names(tmp_path) == [
        *("p_001_x.png", "p_002_x.png", "p_003_x.png"),
        *("plain_0001.png", "plain_0002.png", "plain_0003.png", "single.png"),
    ]
    for i in range(3):
        with Image.open(tmp_path / f"plain_000{i + 1}.png") as picture:
            assert np.array_equal(np.asarray(picture), frames[i])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_settings_come_back(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    write(path, moving_square(2), metadata=SETTINGS)
    assert media.read_settings(path) == SETTINGS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clips_without_settings(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    with pytest.raises(sdltx.InvalidRequestError, match="there is no file"):
        media.read_settings(path)
    write(path, moving_square(1), metadata={"comment": "by somebody else"})
    with pytest.raises(sdltx.InvalidRequestError, match="holds no settings"):
        media.read_settings(path)
    path.write_bytes(path.read_bytes()[:20] if path.exists() else b"")
    with pytest.raises(sdltx.InvalidRequestError, match=r"cannot read|holds no settings"):
        media.read_settings(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_bytes_in_any_pieces(suffix, tmp_path):
    frames = moving_square(9)
    write(tmp_path / f"a{suffix}", frames, metadata=SETTINGS)
    with media.VideoWriter(tmp_path / f"b{suffix}", 24, metadata=SETTINGS) as writer:
        for piece in np.split(frames, [1, 4]):
            writer.write_frames(piece)
    first, second = ([path.read_bytes() for path in sorted(tmp_path.glob(f"{name}*"))] for name in "ab")
    assert first == second
    assert len(first) == (9 if suffix == ".png" else 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), sdltx.Cancelled("stop")])
def test_failure_leaves_the_old_file(suffix, error, tmp_path):
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as raised, media.VideoWriter(path, 24) as writer:
        writer.write_frames(moving_square(9))
        raise error
    assert raised.value is error
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cancel_while_finishing(suffix, tmp_path):
    events = []

    def progress(*event):
        events.append(event)
        raise sdltx.Cancelled("stop")

    with pytest.raises(sdltx.Cancelled):
        write(tmp_path / f"clip{suffix}", moving_square(9), progress=progress)
    assert len(events) == 1
    assert events[0][0] == "write"
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_replaces_and_reports(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    write(path, moving_square(9)[:, :32])
    events = []
    write(path, moving_square(9), progress=lambda *event: events.append(event))
    assert events[-1] == ("write", 9, 9)
    assert all(phase == "write" and 0 < done <= total == 9 for phase, done, total in events)
    if suffix in (".mp4", ".webm"):
        size = video_frames(path).shape[1:3]
    else:
        with Image.open(path if path.exists() else tmp_path / "clip_0001.png") as picture:
            size = (picture.height, picture.width)
    assert size == (64, 96)


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk(suffix, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    with pytest.raises(sdltx.BackendError, match="clip"), file_size_limit(20_000):
        write(tmp_path / f"clip{suffix}", noise)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["clip.avi", "clip", "clip.mp4.txt", ".mp4"])
def test_unknown_suffix(name, tmp_path):
    with pytest.raises(sdltx.InvalidRequestError, match=r"\.mp4, \.webm, \.gif, \.webp, \.png"):
        media.check_output(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unwritable(suffix, tmp_path):
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").touch()
    for target in (f"folder{suffix}", f"missing/clip{suffix}", f"file/clip{suffix}"):
        with pytest.raises(sdltx.InvalidRequestError):
            media.check_output(tmp_path / target)
        with pytest.raises(sdltx.InvalidRequestError):
            media.VideoWriter(tmp_path / target, 24)
    media.check_output(tmp_path / f"fine{suffix}")
    assert names(tmp_path) == ["file", f"folder{suffix}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(sdltx.InvalidRequestError, match="Permission denied"):
        media.check_output(tmp_path / "clip.mp4")


def test_missing_encoder():
    with pytest.raises(sdltx.BackendError, match="lib_no_such_encoder"):
        ContainerFormat("mp4", "lib_no_such_encoder", {}, "aac", {}).check()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_frames(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    with pytest.raises(sdltx.InvalidRequestError, match="no frames"):
        write(path, moving_square(0))
    with pytest.raises(sdltx.InvalidRequestError, match="uint8"):
        write(path, moving_square(1).astype(np.float32))
    with pytest.raises(sdltx.InvalidRequestError, match="followed by"), media.VideoWriter(path, 24) as writer:
        writer.write_frames(moving_square(1))
        writer.write_frames(moving_square(1)[:, :32])
    if suffix in (".mp4", ".webm"):
        with pytest.raises(sdltx.InvalidRequestError, match="even"):
            write(path, moving_square(1)[:, :33])
    assert names(tmp_path) == []


def test_metadata_that_is_no_json(tmp_path):
    for suffix in SUFFIXES:
        with pytest.raises(TypeError):
            media.VideoWriter(tmp_path / f"clip{suffix}", 24, metadata={"x": object()})
    assert names(tmp_path) == []


def test_file_mode_follows_the_umask(tmp_path):
    previous = os.umask(0o027)
    try:
        write(tmp_path / "clip.mp4", moving_square(1))
        write(tmp_path / "clip.png", moving_square(1))
    finally:
        os.umask(previous)
    assert {(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {0o640}
