"""Model files that are here: where they are looked for, and what is said of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

import sdltx
from sdltx import _demo, cli, library, model_sets
from sdltx.model_sets import PublishedFile

FILE = PublishedFile("people/weights", "deep/a.gguf", "transformer", 0.1)
FOLDER = PublishedFile("google/letters", "", "text encoder", 0.1)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A user without any models."""
    for name in ("SDLTX_MODELS", "COMFYUI_PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def make(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_nothing_is_here(home):
    assert library.places() == []
    assert library.own_folder() == home / ".local/share/sdltx/models"
    assert library.Index().find(FILE) is None


def test_folders_of_the_user(home, monkeypatch):
    first, second = home / "one", home / "two"
    first.mkdir()
    path = make(second / "below" / "A.gguf")
    monkeypatch.setenv("SDLTX_MODELS", f"{first}{os.pathsep}~/two")
    assert library.own_folder() == first
    assert [place.folder for place in library.places()] == [first, second]
    monkeypatch.setenv("SDLTX_MODELS", "~nobodyx/foo")
    with pytest.raises(sdltx.InvalidRequestError, match=r"\[SDLTX_MODELS\] there is no user"):
        library.places()
    monkeypatch.setenv("SDLTX_MODELS", f"{first}{os.pathsep}~/two")
    assert library.Index().find(FILE) == path


def test_folders_of_comfyui(home, monkeypatch):
    path = make(home / "ComfyUI/models/diffusion_models/a.gguf")
    assert library.Index().find(FILE) == path
    path.unlink()
    elsewhere = make(home / "disk/unets/a.gguf")
    yaml = home / "ComfyUI/extra_model_paths.yaml"
    yaml.write_text("comfyui:\n  base_path: ~/disk\n  checkpoints: |\n    none\n    /gone\n  unet: unets\nbad: 7\n")
    assert library.Index().find(FILE) == elsewhere
    for broken in ("", "a: [", "- list", "a:\n  unet: {}", "a: 2021-13-45", "a:\n  base_path: ~nobodyq/x\n  unet: y"):
        yaml.write_text(broken)
        assert library.Index().find(FILE) is None
    # A list of lists of ... the same, which is longer than any memory when it is written out.
    laughs = "".join(f"  {b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("bcdefghijklmn"))
    yaml.write_text(f"a:\n  b: &b [x]\n{laughs}  base_path: *n\n  unet: *n\n")
    assert library.Index().find(FILE) is None
    monkeypatch.setenv("COMFYUI_PATH", str(home / "other"))
    assert library.Index().find(FILE) is None
    path = make(home / "other/models/checkpoints/a.gguf")
    assert library.Index().find(FILE) == path


LISTINGS = (
    *(
        "",
        "[]",
        "{}",
        '{"weight_map":[]}',
        '{"weight_map":{"a":[]}}',
        '{"weight_map":{"a":"\\u0000"}}',
        '{"weight_map":7}',
    ),
    *('{"weight_map":{"a":"gone.safetensors"}}', "\xff", '{"a":' * 100_000, "[" * 100_000),
)


@pytest.mark.parametrize("listing", LISTINGS, ids=range(len(LISTINGS)))
def test_listings_of_shards_that_make_no_sense(tmp_path, listing):
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors.index.json").write_text(listing, encoding="latin-1")
    assert not library.is_complete_folder(tmp_path)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", None])
def test_cache_of_the_hub(home, monkeypatch, variable):
    base = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(
        variable, ".cache/huggingface/hub"
    )
    if variable:
        monkeypatch.setenv(variable, str(home / "x"))
    cache = (home / "x" if variable else home) / base
    blob = make(cache / "models--people--weights/blobs/1234")
    link = cache / "models--people--weights/snapshots/abc/deep/a.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    assert library.Index().find(FILE) == link
    folder = cache / "models--google--letters/snapshots/def"
    make(folder / "config.json", b"{}")
    assert library.Index().find(FOLDER) is None
    make(folder / "model.safetensors")
    assert library.Index().find(FOLDER) == folder


def test_links_in_circles(home, monkeypatch):
    monkeypatch.setenv("SDLTX_MODELS", str(home / "m"))
    path = make(home / "m/deep/a.gguf")
    (home / "m/deep/up").symlink_to(home / "m")
    (home / "m/broken.gguf").symlink_to(home / "nowhere")
    assert list(library.Index().files) == ["a.gguf"]
    assert library.Index().find(FILE) == path


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("ltx-2.3-distilled:q4_k_m", True),
        ("ltx-2.3-distilled", True),
        ("LTX-2.3-Distilled:Q4_K_M", True),
        ("ltx-2.9:q4", True),
        ("model.gguf", False),
        ("ltx-2.3-22b-distilled.safetensors", False),
        ("./ltx-2.3-distilled", False),
        ("", False),
    ],
)
def test_names_of_sets(text, spelt):
    assert model_sets.looks_like_a_set(text) == spelt


def test_a_folder_of_that_name_wins(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "ltx-2.3-distilled").mkdir()
    assert library.expanded("load", ["ltx-2.3-distilled"]) == ["ltx-2.3-distilled"]


def test_the_table():
    names = [one.name for one in model_sets.SETS]
    assert len(set(names)) == len(names)
    for family, variant in model_sets.USUAL.items():
        assert model_sets.set_named(family) is model_sets.set_named(f"{family}:{variant}")
    for one in model_sets.SETS:
        assert model_sets.looks_like_a_set(one.name)
        parts = ", ".join(file.part for file in one.needed)
        assert "text encoder" in parts and ("transformer" in parts or "all but" in parts)
        assert 10 < one.gigabytes < 80
        assert len({file.name for file in one.files}) == len(one.files)
        for file in one.files:
            assert file.repository.count("/") == 1 and file.page.endswith(file.repository)
            assert not file.path or file.path.endswith((".gguf", ".safetensors"))


header = b'{"model.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def test_what_is_said_of_files(home, monkeypatch, capsys):
    monkeypatch.setenv("SDLTX_MODELS", str(home / "m"))
    (home / "m").mkdir()
    for path in _demo.FOLDER.glob("*.*"):
        if path.suffix in (".gguf", ".safetensors"):
            (home / "m" / path.name).symlink_to(path)
    make(home / "m/other.gguf", b"GGUF")
    assert cli.main(["models"]) == 0
    told = capsys.readouterr().out
    assert f"{home / 'm'}  (SDLTX_MODELS)" in told
    assert "transformer.gguf: LTX-2.3" in told and "lacks text encoder" in told
    assert f"video decoder is in {home / 'm' / 'video_vae.safetensors'}" in told
    assert "text_projection.safetensors: text projection, " in told
    assert "other.gguf: cannot be read" in told and "check that the download is whole" in told
    assert "of other models" not in told
    make(home / "m/sd.safetensors", len(header).to_bytes(8, "little") + header + bytes(4))
    assert cli.main(["models"]) == 0
    assert "1 file of other models" in capsys.readouterr().out
    assert cli.main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"version", "places", "sets", "files"} == set(told)


def test_no_command_but_pull_uses_the_network(home):
    """With every connection refused, all else works."""
    program = """
import socket, sys
def refuse(*_, **__):
    raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from sdltx.cli import main
for arguments in (
    ["models"], ["models", "--known"], ["recipes"], ["inspect", sys.argv[1]], ["doctor"],
    ["generate", "-p", "x", "-W", "64", "-H", "64", "--num-frames", "1", "--steps", "1", "-o", sys.argv[2]],
    ["generate", "-m", "ltx-2.3-distilled", "-p", "x", "-o", sys.argv[2]],
):
    print(main(arguments), arguments[0], file=sys.stderr)
"""
    model = str(_demo.FOLDER / "transformer.gguf")
    done = subprocess.run(
        [sys.executable, "-c", program, model, str(home / "x.png")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "a connection was tried" not in done.stderr, done.stderr
    assert done.stderr.count("\n0 ") + done.stderr.startswith("0 ") >= 5, done.stderr


def test_a_set_that_is_not_here(home):
    with pytest.raises(sdltx.ModelFileError, match=r"sdltx-cli pull ltx-2.3-distilled:q4_k_m downloads them, about 25"):
        sdltx.load("ltx-2.3-distilled")
    with pytest.raises(sdltx.ModelFileError, match="pull"):
        sdltx.inspect("LTX-2.3-distilled:Q4_K_M")
    with pytest.raises(sdltx.InvalidRequestError, match=r"of ltx-2.3-distilled there are"):
        sdltx.load("ltx-2.3-distilled:q9")
