"""LTX-2.5 as it is released: names, shapes and metadata of every file, on sparse files of zeros."""

from __future__ import annotations

import pytest
import real_layout
from commands import read_safetensors
from ltx25 import file

import sdltx

RUN = ("transformer", "text_encoder", "video_vae_conv", "audio_vae", "duration_head")


@pytest.fixture(scope="module")
def tokenizer() -> bytes:
    header, values = read_safetensors(file("text_encoder"))
    begin, end = header["tokenizer_json"]["data_offsets"]
    return values[begin:end]


@pytest.fixture(scope="module")
def release(tmp_path_factory, tokenizer):
    return real_layout.write_release_of_25(tmp_path_factory.mktemp("ltx-2.5"), tokenizer)


def test_every_tensor_has_its_use(release):
    """4349, 686, 170, 1329 and 15 names: none is missing, none is left over but what sees and hears."""
    with sdltx.load(*(release[kind] for kind in RUN)) as pipe:
        unused = pipe._core.unused_tensors()
        assert len(pipe.info["parts"]) == 9
        assert pipe.info["distilled"]
        assert (pipe.info["model"], pipe.info["preset"]) == ("LTX-2.5", "distilled-2.5")
    eyes_and_ears = ("vision_model.", "multi_modal_projector.", "audio_projector.", "hf_asset__")
    rest = {name for name in unused if not name.startswith(eyes_and_ears)}
    assert rest == {"vocoder.mel_stft.stft_fn.inverse_basis"}


def test_inspect(release):
    told = sdltx.inspect(*(release[kind] for kind in RUN))
    assert told.problems == ()
    assert told.unexpected == ()
    assert told.missing == ()
    counts = {part.part: part.tensors for part in told.parts}
    assert counts["transformer"] == 4091
    assert counts["text projection"] == 258 + 4
    assert counts["duration head"] == 15
    assert sum(counts.values()) == 4349 + 686 + 170 + 1329 + 15


def test_the_folder_of_the_release(release):
    """Both video VAEs, upscalers and all lie in it: what cannot be run is left out."""
    folder = release["transformer"].parent.parent
    with sdltx.load(folder) as pipe:
        assert len(pipe.info["parts"]) == 9
        kinds = sorted(pipe.upscalers().values())
        assert kinds == ["space x2", "time x2"]
        told = pipe.resolve(recipe="distilled-two-stage", width=1536, height=1024)
        assert [stage["sampler"] for stage in told["stages"]] == ["euler_ancestral", "euler"]
        steps = {step["step"] for step in pipe.estimate(width=768, height=512)["steps"]}
        assert "denoise" in steps


def test_the_diffusion_decoder_alone(release):
    with pytest.raises(sdltx.ModelMismatchError, match=r"the diffusion decoder of LTX-2\.5"):
        sdltx.load(release["transformer"], release["text_encoder"], release["video_vae"])


def test_without_a_configuration(release, tmp_path, tokenizer):
    """The shapes of Gemma 4 12B tell it, as in files of the community."""
    told = real_layout.release_of_25()["text_encoder"]
    tensors = {name: [4] if shape == [-1] else shape for name, shape in told["tensors"].items()}
    tensors["tokenizer_json"] = [len(tokenizer)]
    path = real_layout.write_sparse(tmp_path / "e.safetensors", tensors, told["dtypes"], {})
    real_layout.put(path, "tokenizer_json", tokenizer)
    with sdltx.load(release["transformer"], path) as pipe:
        assert "text encoder" in pipe.info["parts"]


@pytest.mark.parametrize("name", ["dev", "distilled", "model"])
def test_names_tell_the_kind(tmp_path, tokenizer, name, release):
    """Dev and distilled have equal headers."""
    path = tmp_path / f"ltx-2.5-22b-{name}-transformer-bf16.safetensors"
    path.symlink_to(release["transformer"])
    with sdltx.load(path) as pipe:
        assert pipe.info["distilled"] == (name == "distilled")
        doubts = [line for line in pipe.doubts() if "nothing tells whether this checkpoint is distilled" in line]
        assert len(doubts) == (name == "model")


def test_the_estimate_of_encoding(release):
    """48 layers of 1,024 rows: the states alone are 770 MB."""
    with sdltx.load(release["transformer"], release["text_encoder"]) as pipe:
        step = pipe.estimate(width=512, height=320, num_frames=25)["steps"][0]
        assert step["step"] == "encode prompts"
        assert 49 * 1024 * 3840 * 4 < step["memory"] < 1.3e9
