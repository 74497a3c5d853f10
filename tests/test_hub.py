"""Downloads, by the real huggingface-hub client from a small server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hub_server import serving

import sdltx
from sdltx import _demo, cli, hub, library, model_sets
from sdltx.model_sets import ModelSet, PublishedFile

WEIGHTS = bytes(range(256)) * 20_000  # 5 MB
NAME = "a-model:q1"
TEXT_ENCODER = PublishedFile("google/letters", "", "text encoder", 0.1)
SMALL = ModelSet("a-model", "q1", "for tests", (PublishedFile("people/weights", "deep/a.gguf", "transformer", 0.1),))


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub that huggingface-hub takes for the real one, and empty folders for the user."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HF_HUB_CACHE", "SDLTX_MODELS", "COMFYUI_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("SDLTX_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(model_sets, "SETS", (SMALL,))
    monkeypatch.setattr(model_sets, "USUAL", {"a-model": "q1"})
    monkeypatch.setattr(hub, "_PAUSE", 0.01)
    with serving() as hub_server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_server.address + template)
        monkeypatch.setattr(constants, "ENDPOINT", hub_server.address)
        hub_server.publish("people/weights", "deep/a.gguf", WEIGHTS)
        hub_server.publish("people/weights", "README.md", b"words")
        yield hub_server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "people" / "weights" / "a.gguf"


def test_a_file_arrives(server, target):
    heard = []
    assert hub.pull(NAME, progress=lambda *what: heard.append(what)) == [target]
    assert target.read_bytes() == WEIGHTS
    assert [path.name for path in target.parent.iterdir()] == ["a.gguf"]  # nothing else is taken, nothing is left over
    assert heard[0] == ("download", 0, len(WEIGHTS)) and heard[-1] == ("download", len(WEIGHTS), len(WEIGHTS))
    before = len(server.requests)
    assert hub.pull(NAME) == [target]
    assert not server.ranges("a.gguf")[1:] and len(server.requests) == before + 1  # the listing only


def test_a_connection_that_is_cut_goes_on(server, target):
    server.cuts["deep/a.gguf"] = [1_000_000, 2_000_000]
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS
    assert server.ranges("a.gguf") == ["bytes=0-", "bytes=1000000-", "bytes=3000000-"]


def test_a_download_that_was_stopped_goes_on(server, target):
    server.cuts["deep/a.gguf"] = [1_500_000] + 20 * [0]
    with pytest.raises(sdltx.BackendError, match=r"no connection .* that lasts.*what has come is kept"):
        hub.pull(NAME)
    assert not target.exists()
    server.cuts.clear()
    server.requests.clear()
    heard = []
    hub.pull(NAME, progress=lambda *what: heard.append(what))
    assert target.read_bytes() == WEIGHTS
    assert server.ranges("a.gguf") == ["bytes=1500000-"]
    assert heard[0][2] == len(WEIGHTS) - 1_500_000


def test_a_callback_stops_it(server, target):
    def stop(phase, done, total):
        if done:
            raise sdltx.Cancelled("[pull] enough")

    with pytest.raises(sdltx.Cancelled, match="enough"):
        hub.pull(NAME, progress=stop)
    assert not target.exists()
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS


def test_a_server_without_ranges(server, target):
    server.cuts["deep/a.gguf"] = [1_000_000]
    server.without_ranges = True
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS


def test_a_busy_server(server, target):
    server.busy = 2
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"!", WEIGHTS + b"more"], ids=["changed", "longer"])
def test_wrong_content_is_not_taken(server, target, content):
    server.false["deep/a.gguf"] = content
    with pytest.raises(sdltx.ModelFileError, match=r"checksum of a.gguf|longer than"):
        hub.pull(NAME)
    assert not target.exists()
    server.false.clear()
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS


def test_a_broken_file_is_found_and_mended(server, target):
    hub.pull(NAME)
    target.write_bytes(b"!" + WEIGHTS[1:])
    assert hub.pull(NAME) == [target]
    assert target.read_bytes() != WEIGHTS  # of the right size, which is all that is looked at
    hub.pull(NAME, verify=True)
    assert target.read_bytes() == WEIGHTS


def test_gated_repositories_are_explained(server, target, monkeypatch):
    gated = PublishedFile("people/weights", "deep/a.gguf", "transformer", 0.1, gated=True)
    monkeypatch.setattr(model_sets, "SETS", (ModelSet("a-model", "q1", "gated", (gated,)),))
    server.gated.add("people/weights")
    with pytest.raises(sdltx.BackendError, match=r"licence accepted.*people/weights.*hf auth login"):
        hub.pull(NAME)
    monkeypatch.setenv("HF_TOKEN", "bad")
    with pytest.raises(sdltx.BackendError, match="licence accepted"):
        hub.pull(NAME)
    assert not target.parent.exists()
    monkeypatch.setenv("HF_TOKEN", "good")
    hub.pull(NAME)
    assert target.read_bytes() == WEIGHTS
    # The token is for the hub; where contents lie is somebody else's.
    told = {(host, token) for host, _, _, token in server.requests}
    assert ("hub", "Bearer good") in told and {token for host, token in told if host == "contents"} == {None}


def test_gated_without_our_knowing(server):
    server.gated.add("people/weights")
    with pytest.raises(sdltx.BackendError, match="licence accepted"):
        hub.pull(NAME)


def test_repositories_change(server):
    server.files.clear()
    with pytest.raises(sdltx.BackendError, match="people/weights is not there"):
        hub.pull(NAME)
    server.publish("people/weights", "deep/b.gguf", b"")
    with pytest.raises(sdltx.ModelFileError, match=r"does not have deep/a.gguf any more"):
        hub.pull(NAME)


def test_a_folder_of_files(server, monkeypatch, tmp_path):
    monkeypatch.setattr(model_sets, "SETS", (ModelSet("a-model", "q1", "folder", (TEXT_ENCODER,)),))
    contents = {
        "config.json": b"{}",
        "model.safetensors.index.json": b'{"weight_map": {"w": "model-00001-of-00001.safetensors"}}',
        "model-00001-of-00001.safetensors": WEIGHTS,
        "tokenizer.model": b"pieces",
    }
    for name, content in contents.items():
        server.publish("google/letters", name, content)
    for name in ("pytorch_model.bin", "run.py", "onnx/config.json", ".gitattributes", "evil.gguf.sh"):
        server.publish("google/letters", name, b"no")
    hub.pull(NAME)
    folder = tmp_path / "models" / "google" / "letters"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    assert library.expanded("load", [NAME]) == [folder]
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(sdltx.ModelFileError, match=r"letters; sdltx-cli pull a-model:q1 downloads them"):
        library.expanded("load", [NAME])


@pytest.mark.parametrize("name", ["../up.json", "-rf.json", "a b.json", "..json", "x" * 300 + ".json", "a\nb.json"])
def test_names_that_do_harm_are_not_taken(server, monkeypatch, tmp_path, name):
    monkeypatch.setattr(model_sets, "SETS", (ModelSet("a-model", "q1", "folder", (TEXT_ENCODER,)),))
    server.publish("google/letters", "config.json", b"{}")
    server.publish("google/letters", name, b"{}")
    hub.pull(NAME)
    assert [path.name for path in (tmp_path / "models").rglob("*.json")] == ["config.json"]


def test_room_on_the_disk(server, monkeypatch, target):
    monkeypatch.setattr(hub.Plan, "free", property(lambda self: 1_000_000))
    with pytest.raises(sdltx.BackendError, match=r"needs 0.0 GB more and .* has 0.0 GB free"):
        hub.pull(NAME)
    assert not target.parent.exists() and not server.ranges("a.gguf")


def test_two_at_a_time(server, target):
    planned = hub.plan(NAME)

    def again(phase, done, total):
        if done:
            with pytest.raises(sdltx.BusyError, match="another process downloads"):
                hub.fetch(planned)

    hub.fetch(planned, progress=again)
    assert target.read_bytes() == WEIGHTS


def test_files_that_are_here_are_not_downloaded(server, monkeypatch, tmp_path):
    comfy = tmp_path / "home" / "ComfyUI" / "models" / "unet" / "A.GGUF"
    comfy.parent.mkdir(parents=True)
    comfy.write_bytes(WEIGHTS)
    assert hub.pull(NAME) == [comfy]
    assert not server.ranges("a.gguf")
    comfy.write_bytes(b"another")  # of another size
    assert hub.pull(NAME) != [comfy]


def test_optional_files(server, monkeypatch, tmp_path):
    extra = PublishedFile("people/weights", "deep/up.safetensors", "upscaler", 0.1, option="upscaler")
    monkeypatch.setattr(model_sets, "SETS", (ModelSet("a-model", "q1", "x", (*SMALL.files, extra)),))
    server.publish("people/weights", "deep/up.safetensors", b"pixels")
    hub.pull(NAME)
    here = tmp_path / "models" / "people" / "weights"
    assert library.expanded("load", [NAME]) == [here / "a.gguf"]
    with pytest.raises(sdltx.InvalidRequestError, match="has no option 'lora'; it has upscaler"):
        hub.pull(NAME, options=["lora"])
    assert hub.pull(NAME, options=["upscaler"])[1] == here / "extras" / "up.safetensors"
    assert library.expanded("load", [NAME]) == [here / "a.gguf", here / "extras"]


def test_optional_files_that_are_elsewhere(server, monkeypatch, tmp_path):
    """A set finds them in a folder of their own, so they get a link there."""
    extra = PublishedFile("people/weights", "deep/up.safetensors", "upscaler", 0.1, option="upscaler")
    monkeypatch.setattr(model_sets, "SETS", (ModelSet("a-model", "q1", "x", (*SMALL.files, extra)),))
    server.publish("people/weights", "deep/up.safetensors", b"pixels")
    comfy = tmp_path / "home/ComfyUI/models/latent_upscale_models/up.safetensors"
    comfy.parent.mkdir(parents=True)
    comfy.write_bytes(b"pixels")
    assert comfy in hub.pull(NAME, options=["upscaler"]) and not server.ranges("up.safetensors")
    extras = tmp_path / "models/people/weights/extras"
    assert extras in library.expanded("load", [NAME])
    assert (extras / "up.safetensors").resolve() == comfy


def test_what_is_pulled_is_what_is_loaded(server, target, monkeypatch, tmp_path):
    """A file of the same name and another size in the way: replaced where files go, refused where it comes before."""
    target.parent.mkdir(parents=True)
    target.write_bytes(b"cut short")
    comfy = tmp_path / "home/ComfyUI/models/unet/a.gguf"
    comfy.parent.mkdir(parents=True)
    comfy.write_bytes(WEIGHTS)
    assert hub.pull(NAME) == [target] == library.expanded("load", [NAME])
    assert target.read_bytes() == WEIGHTS
    first = tmp_path / "first/a.gguf"
    first.parent.mkdir()
    first.write_bytes(b"cut short")
    monkeypatch.setenv("SDLTX_MODELS", os.pathsep.join(map(str, (first.parent, tmp_path / "models"))))
    with pytest.raises(sdltx.ModelFileError, match=r"first/a.gguf has another size"):
        hub.pull(NAME, folder=tmp_path / "models")


def test_a_folder_besides(server, tmp_path, capsys):
    """Where SDLTX_MODELS is set, what lies in the user's own folder is found, too."""
    elsewhere = tmp_path / "elsewhere"
    assert cli.main(["pull", NAME, "--to", str(elsewhere)]) == 0
    assert f"set SDLTX_MODELS={elsewhere}" in capsys.readouterr().err
    assert (elsewhere / "people/weights/a.gguf").read_bytes() == WEIGHTS
    data = tmp_path / "home/.local/share/sdltx/models/a.gguf"
    data.parent.mkdir(parents=True)
    data.write_bytes(WEIGHTS)
    assert library.expanded("load", [NAME]) == [data]
    assert cli.main(["pull", NAME, "--to", ""]) == 2
    assert cli.main(["pull", NAME, "--to", "~nobodyx/a"]) == 2


def test_leftovers_of_other_versions_go(server, target):
    server.cuts["deep/a.gguf"] = [1_000_000] + 20 * [0]
    with pytest.raises(sdltx.BackendError):
        hub.pull(NAME)
    server.cuts.clear()
    server.publish("people/weights", "deep/a.gguf", WEIGHTS[1:])
    hub.pull(NAME)
    assert [path.name for path in target.parent.iterdir()] == ["a.gguf"]


def test_signed_addresses_are_not_told(server, monkeypatch):
    server.busy = 1000
    with pytest.raises(sdltx.BackendError, match="HTTP status 503") as told:
        hub.pull(NAME)
    assert "signature" not in str(told.value)


@pytest.mark.parametrize("options", [5, None, [1]])
def test_options_of_another_kind(server, options):
    with pytest.raises(sdltx.InvalidRequestError, match="options: expected"):
        hub.pull(NAME, options=options)


def test_a_folder_in_the_way(server, target):
    target.mkdir(parents=True)
    with pytest.raises(sdltx.InvalidRequestError, match="is a folder, where the file is to be"):
        hub.pull(NAME)


def test_sets_that_there_are_not(server):
    with pytest.raises(sdltx.InvalidRequestError, match=r"of a-model there are q1"):
        hub.pull("a-model:q2")
    with pytest.raises(sdltx.InvalidRequestError, match=r"did you mean a-model"):
        hub.pull("a_model:q1")
    with pytest.raises(sdltx.InvalidRequestError, match="expected text"):
        hub.pull(7)


def test_without_huggingface_hub(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(sdltx.BackendError, match=r"pip install 'sdltx\[hub\]'"):
        hub.pull(NAME)


def test_offline(server, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(sdltx.BackendError, match="HF_HUB_OFFLINE is set"):
        hub.pull(NAME)


# The command line, with a model that runs: that of the package, as if it were published.


def published_demo(server):
    files = []
    for path in sorted(_demo.FOLDER.iterdir()):
        if path.suffix in (".gguf", ".safetensors"):
            server.publish("people/demo", f"parts/{path.name}", path.read_bytes())
            files.append(PublishedFile("people/demo", f"parts/{path.name}", path.stem, 0.01))
    for path in (_demo.FOLDER / "gemma").iterdir():
        server.publish("people/gemma", path.name, path.read_bytes())
    return ModelSet(
        "ltx-2.3-demo", "tiny", "for tests", (*files, PublishedFile("people/gemma", "", "text encoder", 0.01))
    )


def test_from_nothing_to_a_clip(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(model_sets, "SETS", (published_demo(server),))
    monkeypatch.setattr(model_sets, "USUAL", {"ltx-2.3-demo": "tiny"})
    clip = ["generate", "-m", "ltx-2.3-demo", "-p", "a red circle", "-W", "64", "-H", "64", "--num-frames", "9"]
    clip += ["--steps", "1", "-s", "1", "-o", str(tmp_path / "clip.mp4")]
    assert cli.main(clip) == 3
    assert "sdltx-cli pull ltx-2.3-demo:tiny downloads them" in capsys.readouterr().err

    assert cli.main(["pull", "ltx-2.3-demo", "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "transformer.gguf" in told and "to download: 13." in told and "free on that disk" in told
    assert not (tmp_path / "models").exists()

    assert cli.main(["pull", "ltx-2.3-demo"]) == 0
    assert "ready: sdltx-cli generate -m ltx-2.3-demo:tiny" in capsys.readouterr().err
    assert cli.main(clip) == 0
    assert (tmp_path / "clip.mp4").stat().st_size > 1000
    assert sdltx.inspect("ltx-2.3-demo:tiny").problems == ()
    assert sdltx.inspect("ltx-2.3-demo:tiny").missing == ()

    capsys.readouterr()
    assert cli.main(["models"]) == 0
    assert "ltx-2.3-demo:tiny: ready: -m ltx-2.3-demo:tiny" in capsys.readouterr().out
    assert cli.main(["models", "--known"]) == 0
    assert "[here]" in capsys.readouterr().out


def test_environment_of_the_real_client(server, tmp_path):
    """A mirror and a token by variables, as in a shell."""
    server.gated.add("people/weights")
    program = textwrap.dedent("""
        from sdltx import model_sets
        from sdltx.model_sets import ModelSet, PublishedFile
        file = PublishedFile("people/weights", "deep/a.gguf", "transformer", 0.1, gated=True)
        model_sets.SETS = (ModelSet("a-model", "q1", "for tests", (file,)),)
        from sdltx.cli import main
        raise SystemExit(main(["pull", "a-model:q1", "-v"]))
    """)
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_TOKEN": "good"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "models/people/weights/a.gguf").read_bytes() == WEIGHTS
