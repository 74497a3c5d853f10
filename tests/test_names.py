"""Names of files are no addresses: whatever a file is called, and whatever it is, nothing is fetched or hangs."""

from __future__ import annotations

import http.server
import os
import threading

import numpy as np
import pytest
from commands import errors, generate, names, run

import sdltx
from sdltx import media


def test_nothing_is_fetched(tmp_path):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x"
        for suffix in (".mp4", ".webm", ".wav", ".gif", ".webp", ".png"):
            with pytest.raises(sdltx.InvalidRequestError, match="there is no file"):
                media.read_settings(address + suffix)
        with pytest.raises(sdltx.InvalidRequestError, match="there is no file"):
            sdltx.images.read(address + ".png")
        server.shutdown()
    assert not asked


@pytest.mark.parametrize("name", ["16:9.mp4", "s:1.wav", "http:x.mp4", "pipe:0.mp4", "file:x.webm", "data:x.mp4"])
def test_colons_in_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video = sdltx.Video(np.zeros((9, 32, 32, 3), np.uint8), np.zeros((2, 4800), np.float32), 48000, 24)
    sdltx.Video(video.frames, video.audio, 48000, 24, {"sdltx_version": "1"}).save(name)
    assert names(tmp_path) == [name]
    assert media.read_settings(name) == {"sdltx_version": "1"}


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".wav"])
def test_a_playlist_in_disguise(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(sdltx.InvalidRequestError, match="cannot read"):
        media.read_settings(path)


@pytest.mark.by_day(8)
@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000, "closed/x"])
@pytest.mark.parametrize("option", ["-i", "--last-image", "--lora", "-m", "--prompt-file", "--from", "--upscaler"])
def test_paths_that_cannot_be_looked_at(tmp_path, option, path):
    (tmp_path / "closed").mkdir(mode=0o000)
    words = [option, path, "-o", "x.gif"] + ([] if option in ("--prompt-file", "--from") else ["-p", "x"])
    done = run("generate", *words, "--steps", "1", "-W", "32", "-H", "32", "--num-frames", "9", cwd=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert len(errors(done)) == 1
    assert "Error:" not in errors(done)[0].split("]")[0]
    assert names(tmp_path) == ["closed"]


def test_names_that_are_no_text(tmp_path):
    strange = os.fsdecode(b"m\xff.safetensors")
    done = run("inspect", strange, cwd=tmp_path)
    assert done.returncode == 4
    assert "cannot open the file" in done.stdout
    assert "TypeError" not in done.stderr
    done = generate("-m", strange, "-o", "x.gif", cwd=tmp_path)
    assert done.returncode == 3
    assert "cannot open the file" in errors(done)[0]


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = generate("-o", tmp_path / "file" / "sub" / "clip.mp4")
    assert done.returncode == 2
    assert len(errors(done)) == 1


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", ["p.png", "p.mp4", "p.wav", "p.safetensors"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for words in (["-i", name, "-p", "x"], ["--from", name], ["--lora", name, "-p", "x"]):
        done = run("generate", *words, "-o", "a.gif", "--steps", "1", cwd=tmp_path, timeout=30)
        assert done.returncode in (2, 3), done.stderr
        assert len(errors(done)) == 1


def test_a_pipe_for_a_configuration(tiny_paths, tmp_path):
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "model.safetensors").symlink_to(f"{tiny_paths[1]}/model.safetensors")
    with pytest.raises(sdltx.ModelFileError, match="is not a regular file"):
        sdltx.load(tiny_paths[0], tmp_path)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("name", ["a\0b.png", "a\ud800b.png"])
def test_names_that_no_file_can_have(tiny, tmp_path, name):
    video = sdltx.Video(np.zeros((1, 32, 32, 3), np.uint8))
    for call in (
        lambda: sdltx.images.read(name),
        lambda: video.save(name),
        lambda: media.read_settings(name),
        lambda: tiny.check(loras=[name]),
        lambda: tiny.resolve(upscaler=name),
        lambda: sdltx.load(name),
    ):
        with pytest.raises(sdltx.InvalidRequestError, match="no name that a file can have"):
            call()
    for setting in (
        {"images": [{"path": name}]},
        {"loras": [[name, 1.0]]},
        {"upscalers": [name]},
        {"distilled_lora": name},
    ):
        latents = sdltx.Latents(
            np.zeros((4, 1, 1, 1), np.float32), settings={"sdltx_version": "9", "prompt": "x", **setting}
        )
        latents.save(tmp_path / "l.safetensors")
        done = run("generate", "--from", tmp_path / "l.safetensors", "--dry-run")
        assert done.returncode == 2, done.stderr
        assert len(errors(done)) == 1
