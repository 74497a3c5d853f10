"""The release's own names, shapes and widths, on sparse files of zeros: what a 46 GB checkpoint meets."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import real_layout

import sdltx

GIB = 1 << 30
UNUSED = {"vocoder.mel_stft.stft_fn.inverse_basis"}  # from spectrum to sound, which nobody asks for


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return real_layout.write_checkpoint(tmp_path_factory.mktemp("real") / "ltx-2.3-22b-dev.safetensors")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, tiny_dir):
    """The 12B's tensors; its tokenizer is ours, as nobody's is part of this project."""
    folder = tmp_path_factory.mktemp("gemma-3-12b-it")
    real = real_layout.manifest("gemma-3-12b-it")
    real_layout.write_sparse(folder / "model.safetensors", real["tensors"])
    (folder / "config.json").write_text(json.dumps({"text_config": real["config"]}))
    (folder / "tokenizer.model").write_bytes((tiny_dir / "gemma" / "tokenizer.model").read_bytes())
    return folder


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    return write_decoders(tmp_path_factory.mktemp("real") / "decoders.safetensors", "ltx-2.3-22b")


def write_decoders(path, model):
    return real_layout.write_checkpoint(
        path, lambda name: name.startswith(("vae.", "audio_vae.", "vocoder.")), model=model
    )


def test_the_whole_model_is_opened_without_reading_it(checkpoint, gemma):
    """5,947 and 1,065 tensors, 70 GB: 2 seconds and 500 MB at most, and none of its pages."""
    code = f"""
        import time, sdltx
        start = time.monotonic()
        pipe = sdltx.load({str(checkpoint)!r}, {str(gemma)!r})
        took = time.monotonic() - start
        peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(took, int(peak) / 1024, *pipe.info["parts"], sep="|")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    took, megabytes, *parts = done.stdout.strip().split("|")
    print(f"{took} s, {megabytes} MB")
    assert float(megabytes) < 500
    assert set(parts) == {
        *("transformer", "text encoder", "text projection", "video decoder", "audio decoder", "vocoder"),
        *("video encoder", "audio encoder"),
    }


def test_every_tensor_of_the_release_has_its_use(checkpoint, gemma):
    """All 5,947 but one that no network reads, and the 626 of 1,065 that encode text."""
    pipe = sdltx.load(checkpoint, gemma)
    unused = pipe._core.unused_tensors()
    gemma_names = set(real_layout.manifest("gemma-3-12b-it")["tensors"])
    of_gemma = [name for name in unused if name in gemma_names]
    assert len(gemma_names) - len(of_gemma) == 626
    assert all(name.startswith(("vision_tower.", "multi_modal_projector.")) for name in of_gemma)
    assert set(unused) - gemma_names == UNUSED


@pytest.mark.parametrize("removed", ["vae.decoder.conv_in.conv.weight", "model.diffusion_model.scale_shift_table"])
def test_one_missing_tensor_is_named(tmp_path, removed):
    path = real_layout.write_checkpoint(tmp_path / "ltx.safetensors", lambda name: name != removed)
    with pytest.raises(sdltx.ModelMismatchError, match=f"missing {removed}"):
        sdltx.load(path)


def decode_memory(pipe, **size):
    """Bytes that a tile is computed in."""
    step = next(step for step in pipe.estimate(**size)["steps"] if step["step"] == "decode pictures")
    return step["devices"][0]["inputs"] + step["devices"][0]["working"]


@pytest.mark.parametrize("model", ["ltx-2.3-22b", "ltx-2.0-19b"])
@pytest.mark.parametrize("width, height", [(768, 512), (1280, 704), (1024, 1024)])
def test_a_default_tile_decodes_in_6_gib(tmp_path, model, width, height):
    """Working memory as it is reserved, of 121 frames; weights are not counted."""
    pipe = sdltx.load(write_decoders(tmp_path / "decoders.safetensors", model))
    memory = decode_memory(pipe, width=width, height=height, num_frames=121)
    print(f"{model} {width}x{height}x121: {memory / GIB:.2f} GiB")
    assert memory <= 6 * GIB


@pytest.mark.parametrize("shape", [(16, 24, 24), (16, 22, 40), (33, 34, 60), (8192, 2, 2)])
def test_untiled_sizes_end_in_a_figure_or_an_error(decoders, shape):
    """Whatever is asked for: no assertion of ggml ends the process."""
    pipe = sdltx.load(decoders)
    frames, height, width = shape
    size = {"width": 32 * width, "height": 32 * height, "num_frames": 8 * (frames - 1) + 1, "frame_rate": 240}
    assert decode_memory(pipe, **size, tiling=(0, 0, 0, 0)) > 0


def test_a_size_that_cannot_fit_is_refused(decoders):
    import numpy as np

    pipe = sdltx.load(decoders)
    latents = sdltx.Latents(video=np.zeros((128, 33, 120, 240), np.float32), frame_rate=24)
    with pytest.raises(sdltx.OutOfMemoryError, match="smaller"):
        pipe.decode(latents, tiling=sdltx.Tiling(size=0, frames=0))
