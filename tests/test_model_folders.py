"""Model folders of real people: what lies beside a model, and what is taken for one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from commands import read_safetensors, write_safetensors

import sdltx


@pytest.fixture
def folder(tmp_path, tiny_paths):
    shutil.copy(tiny_paths[0], tmp_path / "model.safetensors")
    shutil.copytree(tiny_paths[1], tmp_path / "gemma")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("._model.safetensors", b"\0\5\x16\7", ""),
        ("mmproj-model.gguf", b"GGUF", ""),
        ("broken.safetensors", b"junk", "not used"),
        ("half.gguf", b"GGUF\3\0\0\0", "not used"),
    ],
)
def test_what_lies_beside_a_model_does_not_stop_it(folder, name, content, said, caplog):
    (folder / name).write_bytes(content)
    with sdltx.load(folder) as pipe:
        pipe.require("transformer", "text encoder")
    assert said in caplog.text
    assert bool(caplog.text) is bool(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\xef\xbb\xbf\n <html></html>", "web page"),
        (bytes(4096), "zeros"),
        (b"something", "neither a safetensors nor a GGUF"),
        (b"", "empty"),
    ],
)
def test_files_that_are_no_models_are_told_apart(tmp_path, content, said):
    (tmp_path / "m.safetensors").write_bytes(content)
    for path in (tmp_path / "m.safetensors", tmp_path):
        with pytest.raises(sdltx.ModelFileError, match=said):
            sdltx.load(path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Lightricks/LTX-2.3", "Hugging Face"),
        ("models/*.safetensors", "no file fits"),
        ("~/models", "not quoted"),
        ("", "empty"),
        ("no-such-file.safetensors", "check the path"),
    ],
)
def test_paths_that_lead_nowhere_get_a_hint(path, said):
    with pytest.raises(sdltx.ModelFileError, match=said):
        sdltx.load(path)


def test_what_is_no_path_is_a_request_that_is_wrong():
    with pytest.raises(sdltx.InvalidRequestError, match="no name that a file can have"):
        sdltx.load("a\0b")


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(sdltx.ModelFileError, match="not a regular file"):
        sdltx.load(tmp_path / "m.safetensors")


def test_a_cache_of_hugging_face_is_a_model_folder(tmp_path, tiny_paths):
    root = tmp_path / "models--Lightricks--LTX"
    for commit, source in (("aaaa", None), ("bbbb", tiny_paths)):
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        if source:
            (root / "blobs").mkdir()
            shutil.copy(source[0], root / "blobs" / "0123")
            (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
            shutil.copytree(source[1], snapshot / "gemma")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbbb")
    with sdltx.load(root) as pipe:
        pipe.require("transformer", "text encoder", "video decoder")


def test_a_download_that_stopped_is_no_model(tmp_path, tiny_paths):
    """Full length, header and first weights there, zeros afterwards."""
    data = bytearray((Path(sdltx.__file__).parent / "demo" / "video_vae.safetensors").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(sdltx.ModelFileError, match="download is not complete"):
        sdltx.load(tmp_path / "m.safetensors")


def test_two_copies_are_one_short_line(tmp_path, tiny_paths):
    shutil.copy(tiny_paths[0], tmp_path / "a.safetensors")
    with pytest.raises(sdltx.ModelMismatchError) as caught:
        sdltx.load(*tiny_paths, tmp_path / "a.safetensors")
    assert "both hold a transformer; give one" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_unknown_type_is_one_short_line(tmp_path, tiny_paths):
    header, data = read_safetensors(tiny_paths[0])
    blob = b""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        piece = data[begin:end]
        if len(entry["shape"]) == 2:
            count = entry["shape"][0] * entry["shape"][1]
            entry["dtype"], piece = "F8_E8M0", b"\x38" * count
        entry["data_offsets"] = [len(blob), len(blob) + len(piece)]
        blob += piece
    write_safetensors(tmp_path / "fp8.safetensors", header, blob)
    with pytest.raises(sdltx.ModelMismatchError) as caught:
        sdltx.load(tmp_path / "fp8.safetensors", tiny_paths[1])
    assert "F8_E8M0" in str(caught.value)
    assert "BF16" in str(caught.value)
    assert len(str(caught.value)) < 1200
