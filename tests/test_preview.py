"""What a clip looks like before it is finished."""

from __future__ import annotations

import numpy as np
import pytest
from commands import errors, generate, names
from PIL import Image

import sdltx
from sdltx import preview

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 3, "seed": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.mark.parametrize("sampler", ["euler", "res_2s"])
def test_estimates_after_each_step(tiny, sampler):
    """As the loop has them; the last one is the clip."""
    seen = []
    context = tiny.encode("a red ball")
    options = {**SMALL, "preset": "distilled", "sampler": sampler}
    latents = tiny.sample(context, **options, on_step=lambda *event: seen.append(event))
    steps = 4 if sampler == "res_2s" else 3
    assert [(done, of) for done, of, _ in seen] == [(i + 1, steps) for i in range(steps)]
    for _, _, estimate in seen:
        assert isinstance(estimate, sdltx.Latents)
        assert estimate.video.shape == latents.video.shape
        assert estimate.frame_rate == latents.frame_rate
    assert np.allclose(seen[-1][2].video, latents.video, atol=1e-5)
    assert not np.allclose(seen[0][2].video, latents.video, atol=1e-2)
    plain = tiny.sample(context, **options)
    assert np.array_equal(plain.video, latents.video)


def test_an_exception_ends_the_run_unchanged(tiny):
    def stop(done, steps, estimate):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        tiny.sample(tiny.encode("x"), **SMALL, preset="distilled", on_step=stop)
    tiny.sample(tiny.encode("x"), **SMALL, preset="distilled")


def cells_of(frames):
    """Mean colours (F', H / 32, W / 32, 3) of what each latent cell stands for; frames (F, H, W, 3)."""
    count, height, width, _ = frames.shape
    cells = frames.astype(np.float64).reshape(count, height // 32, 32, width // 32, 32, 3).mean(axis=(2, 4))
    return np.concatenate([cells[:1], cells[1:].reshape((count - 1) // 8, 8, *cells.shape[1:]).mean(axis=1)])


@pytest.mark.by_day(0)
def test_it_looks_like_the_clip(demo, cache):
    """Colours of cells as the projection sees them, against those of decoded clips; channels in disorder do not do."""
    prompts = (
        "a red triangle moves right over a navy background",
        "a cyan square stays still on a sunset gradient, with a low hum",
        "a large purple star moves to the right over a forest background",
        "a yellow circle bounces on a gray background",
        "a small white square moves up on a dark background",
        "a big orange circle grows on a light background",
    )
    projection = preview.Projection(demo)
    fitted, rng = projection.matrix, np.random.default_rng(0)
    disorders = [np.concatenate([rng.permutation(fitted[:-1]), fitted[-1:]]) for _ in range(20)]
    found, control = [], []
    for prompt in prompts:
        latents = demo.sample(demo.encode(prompt), seed=6, num_inference_steps=8)
        cells = cells_of(demo.decode(latents).frames)
        for matrix in [fitted, *disorders]:
            projection.matrix = matrix
            seen = projection.frames(latents)[:, ::8, ::8].astype(np.float64)
            assert seen.shape == cells.shape
            values = found if matrix is fitted else control
            values.append(np.corrcoef(seen.ravel(), cells.ravel())[0, 1])
    print(f"correlation {np.round(found, 2)}, in disorder {np.mean(control):.2f}")
    assert np.mean(found) > max(0.5, 2 * np.mean(control))


def test_it_is_fitted_once_for_each_decoder(demo, tiny, cache, monkeypatch):
    first = preview.Projection(demo)
    kept = names(cache / "sdltx")
    assert len(kept) == 1
    calls = []
    monkeypatch.setattr(preview, "fit", lambda pipe: calls.append(pipe) or np.zeros((9, 3), np.float32))
    assert np.array_equal(preview.Projection(demo).matrix, first.matrix)
    assert not calls
    preview.Projection(tiny)
    assert len(calls) == 1
    assert len(names(cache / "sdltx")) == 2
    (cache / "sdltx" / kept[0]).write_bytes(b"damaged")
    preview.Projection(demo)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written(demo, cache, monkeypatch):
    (cache / "sdltx").write_text("a file in its place")
    assert preview.Projection(demo).matrix.shape == (demo.latent_channels + 1, 3)


def test_on_the_command_line(tmp_path):
    path = tmp_path / "p.webp"
    done = generate("-o", tmp_path / "a.mp4", "--preview", path)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["a.mp4", "p.webp"]
    with Image.open(path) as picture:
        assert picture.size == (16, 16)
        assert picture.n_frames in (1, 2)  # equal pictures become one
    for flags, message in (
        (["--preview", tmp_path / "a.mp4", "-o", tmp_path / "a.mp4"], "both write"),
        (["--preview", tmp_path / "x.wav", "-o", tmp_path / "b.mp4"], "a preview has pictures"),
        (["--preview", path, "--preview-every", "0", "-o", tmp_path / "b.mp4"], "use 1 or more"),
    ):
        done = generate(*flags)
        assert done.returncode == 2
        assert message in errors(done)[0]
