"""The nodes for ComfyUI, called as ComfyUI calls nodes, with stand-ins for what it gives."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import sdltx
from sdltx import media

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
# Types of inputs that ComfyUI draws a widget for, and keys of their options that it knows.
WIDGETS = {"STRING", "INT", "FLOAT", "BOOLEAN"}
KEYS = {"default", "min", "max", "step", "tooltip", "multiline", "control_after_generate"}


class Tensor:
    """As much of a tensor as nodes use."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __getitem__(self, index):
        return Tensor(self.values[index])

    def __len__(self):
        return len(self.values)

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)


class Stopped(Exception):
    """What ComfyUI raises when somebody presses its button."""


@pytest.fixture
def comfy(monkeypatch, tmp_path):
    """The nodes, among modules as ComfyUI has them."""
    bars, stops, glances = [], [], []
    settings = types.SimpleNamespace(preview_method="none")

    class Bar:
        def __init__(self, total):
            self.current, self.total = 0, total
            bars.append([total, 0])

        def update_absolute(self, value, total=None, preview=None):
            self.current = bars[-1][1] = value
            if preview is not None:
                glances.append(preview)

    def check():
        if stops:
            raise Stopped

    def place(prefix, folder):
        path = Path(folder) / Path(prefix).parent
        path.mkdir(parents=True, exist_ok=True)
        return str(path), Path(prefix).name, 1, str(Path(prefix).parent), prefix

    modules = {
        "torch": {"from_numpy": Tensor},
        "comfy": {"__path__": []},
        "comfy.utils": {"ProgressBar": Bar},
        "comfy.cli_args": {"args": settings, "LatentPreviewMethod": types.SimpleNamespace(NoPreviews="none")},
        "comfy.model_management": {"throw_exception_if_processing_interrupted": check},
        "folder_paths": {"get_output_directory": lambda: str(tmp_path), "get_save_image_path": place},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for name, parent in (("utils", "comfy"), ("model_management", "comfy"), ("cli_args", "comfy")):
        setattr(sys.modules[parent], name, sys.modules[f"{parent}.{name}"])
    # As ComfyUI loads a folder of custom_nodes: by its path, under a name of its own.
    spec = importlib.util.spec_from_file_location(
        "custom_sdltx", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "custom_sdltx", package)
    spec.loader.exec_module(package)
    package.bars, package.stops, package.glances, package.settings = bars, stops, glances, settings
    yield package
    for name in [name for name in sys.modules if name.startswith("custom_sdltx.")]:
        del sys.modules[name]


def call(package, node: str, **given):
    """Runs a node as the executor does: with defaults of widgets that are not given, and nothing else."""
    kind = package.NODE_CLASS_MAPPINGS[node]
    inputs = kind.INPUT_TYPES()
    filled = {}
    for name, (type_, *rest) in inputs["required"].items():
        told = rest[0] if rest else {}
        if name in given:
            filled[name] = given.pop(name)
        elif isinstance(type_, list):
            filled[name] = told.get("default", type_[0])
        else:
            filled[name] = told["default"]
    unknown = given.keys() - inputs.get("optional", {}).keys()
    assert not unknown
    result = getattr(kind(), kind.FUNCTION)(**filled, **given)
    values = result["result"] if isinstance(result, dict) else result
    assert len(values) == len(kind.RETURN_TYPES)
    return result if isinstance(result, dict) else values


def test_nodes_are_of_the_form_that_comfyui_has(comfy):
    assert comfy.NODE_CLASS_MAPPINGS.keys() == comfy.NODE_DISPLAY_NAME_MAPPINGS.keys()
    made = {type_ for kind in comfy.NODE_CLASS_MAPPINGS.values() for type_ in kind.RETURN_TYPES}
    for kind in comfy.NODE_CLASS_MAPPINGS.values():
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
        assert callable(getattr(kind, kind.FUNCTION))
        inputs = kind.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional"}
        for name, (type_, *rest) in {**inputs["required"], **inputs.get("optional", {})}.items():
            told = rest[0] if rest else {}
            assert set(told) <= KEYS, name
            if isinstance(type_, list):
                assert all(isinstance(one, str) for one in type_)
                assert told.get("default", type_[0]) in type_
            elif type_ in WIDGETS:
                least, most = told.get("min"), told.get("max")
                assert least is None or least <= told["default"] <= most, name
            else:
                assert type_ in made | {"IMAGE", "AUDIO"}, name


def test_a_graph_makes_the_clip_of_the_pipeline(comfy, tmp_path):
    (model,) = call(comfy, "SdltxLoad", device="cpu")
    (context,) = call(comfy, "SdltxEncode", model=model, prompt="a red circle moves left")
    (options,) = call(comfy, "SdltxOption", name="guidance_scale", value="3")
    (options,) = call(comfy, "SdltxOption", name="sampler", value="euler", options=options)
    red = np.zeros((1, 64, 64, 3), np.float32)
    red[..., 0] = 0.8
    latents, settings = call(
        comfy, "SdltxSample", model=model, context=context, seed=3, width=64, height=64, num_frames=9, steps=2,
        first_image=Tensor(red), options=options,
    )  # fmt: skip
    assert json.loads(settings)["guidance_scale"] == 3
    images, audio, rate = call(comfy, "SdltxDecode", model=model, latents=latents)
    expected = model.generate(
        "a red circle moves left", seed=3, width=64, height=64, num_frames=9, num_inference_steps=2,
        guidance_scale=3, image=np.rint(red[0] * 255).astype(np.uint8),
    )  # fmt: skip
    np.testing.assert_array_equal(np.rint(images.values * 255).astype(np.uint8), expected.frames)
    assert images.values.dtype == np.float32
    np.testing.assert_array_equal(audio["waveform"].values[0], expected.audio)
    assert (audio["sample_rate"], rate) == (expected.sample_rate, 12.0)
    assert all(done == total for total, done in comfy.bars)
    saved = call(comfy, "SdltxSave", model=model, latents=latents, filename_prefix="clips/one")
    assert saved["ui"]["images"] == [{"filename": "one_00001_.mp4", "subfolder": "clips", "type": "output"}]
    assert media.read_settings(saved["result"][0])["seed"] == 3


def test_glances_are_shown_where_comfyui_is_set_to(comfy):
    (model,) = call(comfy, "SdltxLoad", device="cpu")
    (context,) = call(comfy, "SdltxEncode", model=model, prompt="a red circle")
    size = {"width": 64, "height": 64, "num_frames": 9, "steps": 3}
    plain, _ = call(comfy, "SdltxSample", model=model, context=context, **size)
    assert comfy.glances == []
    comfy.settings.preview_method = "auto"
    watched, _ = call(comfy, "SdltxSample", model=model, context=context, **size)
    np.testing.assert_array_equal(watched.video, plain.video)
    assert [(kind, picture.size, largest) for kind, picture, largest in comfy.glances] == [("JPEG", (16, 16), 512)] * 3
    assert all(done == total for total, done in comfy.bars)


def test_sounds_and_films(comfy):
    (model,) = call(comfy, "SdltxLoad", device="cpu")
    (context,) = call(comfy, "SdltxEncode", model=model, prompt="a chord")
    size = {"width": 64, "height": 64, "num_frames": 9, "steps": 1}
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 2, 40_000)).astype(np.float32)
    sound = {"waveform": Tensor(noise), "sample_rate": 48_000}
    _, settings = call(comfy, "SdltxSample", model=model, context=context, audio=sound, **size)
    assert json.loads(settings)["task"] == "sound to clip"
    film = Tensor(np.zeros((9, 64, 64, 3), np.float32))
    (options,) = call(comfy, "SdltxOption", name="foley", value="true")
    _, settings = call(comfy, "SdltxSample", model=model, context=context, film=film, steps=1, options=options)
    assert (json.loads(settings)["task"], json.loads(settings)["frame_rate"]) == ("foley", 12)  # the model's own
    with pytest.raises(sdltx.InvalidRequestError, match="no picture"):
        call(comfy, "SdltxSample", model=model, context=context, film=Tensor(np.zeros((0, 64, 64, 3))))


def test_the_button_stops_a_clip(comfy):
    (model,) = call(comfy, "SdltxLoad", device="cpu")
    (context,) = call(comfy, "SdltxEncode", model=model, prompt="x")
    comfy.stops.append(True)
    with pytest.raises(Stopped):
        call(comfy, "SdltxSample", model=model, context=context)
    comfy.stops.clear()
    call(comfy, "SdltxSample", model=model, context=context, width=64, height=64, num_frames=9, steps=1)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("guidance_scale", "3.5", 3.5),
        ("stg_blocks", "1, 2", [1, 2]),
        ("sigmas", "[1, 0.5, 0]", [1.0, 0.5, 0.0]),
        ("audio", "False", False),
        ("duration", "5s", 5.0),
        ("duration", "auto", "auto"),
        ("recipe", "guided", "guided"),
        ("loras", "a.safetensors:0.5\nb:c.safetensors", [("a.safetensors", 0.5), ("b:c.safetensors", 1.0)]),
        ("upscaler", "a.safetensors", ["a.safetensors"]),
    ],
)
def test_options_are_read_as_their_rows_tell(comfy, name, text, value):
    (options,) = call(comfy, "SdltxOption", name=name, value=text)
    assert options == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("audio", "maybe", "neither true nor false"),
        ("stg_blocks", "one", "whole numbers"),
        ("guidance_scale", "x", "'x' is not a number"),
        ("duration", "long", "auto or a number"),
        ("recipe", "typo", "guided"),
        ("guidance_scale", "nan", "not a number"),
        ("sigmas", "1, 1e999, 0", "numbers with commas"),
        ("duration", "inf", "auto or a number"),
        ("upscaler", " ", "no file is given"),
    ],
)
def test_options_that_are_none(comfy, name, text, told):
    """ComfyUI asks before it runs a graph; a text that another node gives is known only then."""
    kind = comfy.NODE_CLASS_MAPPINGS["SdltxOption"]
    assert told in kind.VALIDATE_INPUTS(name, text)
    assert kind.VALIDATE_INPUTS(name, None) is True
    assert kind.VALIDATE_INPUTS("audio", "true") is True
    assert kind.VALIDATE_INPUTS("seed", "1") == kind.VALIDATE_INPUTS("seed", "x") == "[seed] there is no such option"
    with pytest.raises(sdltx.InvalidRequestError, match=name):
        call(comfy, "SdltxOption", name=name, value=text)
