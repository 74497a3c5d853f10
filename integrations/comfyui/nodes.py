"""The nodes. Each is a class in the form that ComfyUI has for them: its inputs, its outputs, and a function."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sdltx
from sdltx import library
from sdltx.options import ROWS, sentences
from sdltx.preview import Projection

from . import values

_CATEGORY = "sdltx"
_MODEL, _CONTEXT, _LATENTS, _OPTIONS = "SDLTX_MODEL", "SDLTX_CONTEXT", "SDLTX_LATENTS", "SDLTX_OPTIONS"
_OWN = "0: as the model has it"
_OFTEN = 0.1  # seconds between two moves of a bar
_LARGEST_GLANCE = 512  # pixels of a side, as ComfyUI has it for its own
# Options that are inputs of nodes, or that ComfyUI has files and tensors for.
_ELSEWHERE = ("prompt", "negative_prompt", "width", "height", "num_frames", "frame_rate", "seed", "num_inference_steps")
_ELSEWHERE += ("tiling", "enhanced_from")


class _Progress:
    """ComfyUI's bar, which also hears of its button to stop."""

    def __init__(self) -> None:
        import comfy.utils

        self._bar: Any = None
        self._phase, self._told = "", 0.0
        self._new = comfy.utils.ProgressBar

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Is a progress callback; raises what ComfyUI raises when somebody stops it."""
        import comfy.model_management

        comfy.model_management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._bar, self._told = phase, self._new(total), 0.0
        if done == total or now - self._told >= _OFTEN:  # each is sent to all browsers
            self._told = now
            self._bar.update_absolute(done, total)

    def glances_of(self, model: sdltx.Pipeline) -> Callable[[int, int, sdltx.Latents], None] | None:
        """Returns what shows each step's clip under the node; None unless ComfyUI is set to show such pictures."""
        from comfy.cli_args import LatentPreviewMethod, args
        from PIL import Image

        if args.preview_method == LatentPreviewMethod.NoPreviews or "video decoder" not in model.info.parts:
            return None
        try:
            projection = Projection(model)
        except sdltx.SdltxError:  # a glance is not worth the clip
            return None

        def show(done: int, steps: int, estimate: sdltx.Latents) -> None:
            if estimate.video.size and self._bar is not None:
                frames = projection.frames(estimate)
                picture = Image.fromarray(frames[len(frames) // 2])
                self._bar.update_absolute(self._bar.current, self._bar.total, ("JPEG", picture, _LARGEST_GLANCE))

        return show


class Load:
    """Opens a model."""

    CATEGORY, FUNCTION = _CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (_MODEL,), ("model",)
    DESCRIPTION = "Opens a model of the LTX-2 family: files, a folder, or a set that sdltx-cli pull has brought."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (as ComfyUI calls it)
        """The inputs of the node."""
        devices = ["auto", *(device.name for device in sdltx.devices())]
        return {
            "required": {
                "files": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "Files, folders or names of sets such as ltx-2.3-distilled:q4_k_m, one a line; "
                        "nothing: the small demonstration model",
                    },
                ),
                "device": (devices, {"tooltip": "Where it computes"}),
                "offload": (
                    ["auto", "none", "stage", "blocks"],
                    {"tooltip": "How long weights stay in memory; auto: as long as there is room"},
                ),
                "max_memory": (
                    "FLOAT",
                    {"default": 0.0, "min": -1e6, "max": 1e6, "tooltip": "GiB of the machine; 0: what is free"},
                ),
            }
        }

    def load(self, files: str, device: str, offload: str, max_memory: float) -> tuple[Any]:
        """Returns the model."""
        names = [line.strip() for line in files.splitlines() if line.strip()]
        paths = library.expanded("load", names) if names else []
        options: dict[str, Any] = {"device": device, "offload": offload}
        if max_memory:
            options["max_memory"] = max_memory
        return (sdltx.load(*paths, **options, progress=_Progress()),)


class Encode:
    """Turns a prompt into what the model attends to."""

    CATEGORY, FUNCTION = _CATEGORY, "encode"
    RETURN_TYPES, RETURN_NAMES = (_CONTEXT,), ("context",)
    DESCRIPTION = "Turns a prompt into what the model attends to."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs of the node."""
        return {"required": {"model": (_MODEL,), "prompt": ("STRING", {"default": "", "multiline": True})}}

    def encode(self, model: sdltx.Pipeline, prompt: str) -> tuple[Any]:
        """Returns the context."""
        return (model.encode(prompt, progress=_Progress()),)


class Option:
    """One more option of a clip."""

    CATEGORY, FUNCTION = _CATEGORY, "add"
    RETURN_TYPES, RETURN_NAMES = (_OPTIONS,), ("options",)
    DESCRIPTION = "Sets one more option of a clip. " + "\n".join(
        f"{name}: {sentences(row)}" for name, row in ROWS.items() if name not in _ELSEWHERE
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs of the node."""
        names = [name for name in ROWS if name not in _ELSEWHERE]
        value = {"default": "", "multiline": True, "tooltip": "Numbers with commas; true or false; files one a line"}
        return {
            "required": {"name": (names, {"default": "guidance_scale"}), "value": ("STRING", value)},
            "optional": {"options": (_OPTIONS, {"tooltip": "Those before"})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str | None, value: str | None) -> bool | str:  # noqa: N802
        """Whether they can be, else why not: before anything of the graph runs. None: what another node will give."""
        if name is None or value is None:
            return True
        if name not in ROWS or name in _ELSEWHERE:
            return f"[{name[:60]}] there is no such option"
        try:
            values.option_of(name, value)
        except sdltx.InvalidRequestError as error:
            return str(error)
        return True

    def add(self, name: str, value: str, options: dict[str, Any] | None = None) -> tuple[Any]:
        """Returns the options with this one."""
        return ({**(options or {}), name: values.option_of(name, value)},)


class Sample:
    """Denoises a clip."""

    CATEGORY, FUNCTION = _CATEGORY, "sample"
    RETURN_TYPES, RETURN_NAMES = (_LATENTS, "STRING"), ("latents", "settings")
    DESCRIPTION = "Makes a clip with its sound, before it is decoded."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs of the node."""

        def whole(least: int, most: int, step: int, tooltip: str) -> tuple[str, dict[str, Any]]:
            return "INT", {"default": 0, "min": least, "max": most, "step": step, "tooltip": f"{tooltip}; {_OWN}"}

        rate = {"default": 0.0, "min": 0.0, "max": 1000.0, "step": 0.001, "tooltip": f"Frames per second; {_OWN}"}
        return {
            "required": {
                "model": (_MODEL,),
                "context": (_CONTEXT,),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True}),
                "width": whole(0, 16384, 32, "Pixels"),
                "height": whole(0, 16384, 32, "Pixels"),
                "num_frames": whole(0, 4097, 1, "8 k + 1 pictures"),
                "steps": whole(0, 1000, 1, "Steps of denoising"),
                "frame_rate": ("FLOAT", rate),
            },
            "optional": {
                "negative": (_CONTEXT, {"tooltip": "Away from this; nothing: the model's own"}),
                "first_image": ("IMAGE", {"tooltip": "What the clip begins with"}),
                "last_image": ("IMAGE", {"tooltip": "What it ends with"}),
                "audio": ("AUDIO", {"tooltip": "A sound that pictures are made for"}),
                "film": ("IMAGE", {"tooltip": "For the options retake, extend, foley and dub; at frame_rate"}),
                "film_audio": ("AUDIO", {"tooltip": "Its sound"}),
                "options": (_OPTIONS, {}),
            },
        }

    def sample(
        self,
        model: sdltx.Pipeline,
        context: sdltx.Context,
        seed: int,
        width: int,
        height: int,
        num_frames: int,
        steps: int,
        frame_rate: float,
        negative: sdltx.Context | None = None,
        first_image: Any | None = None,
        last_image: Any | None = None,
        audio: Any | None = None,
        film: Any | None = None,
        film_audio: Any | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, str]:
        """Returns the clip's latents, and how they were made."""
        own = {"width": width, "height": height, "num_frames": num_frames, "frame_rate": frame_rate}
        given = {name: value for name, value in {**own, "num_inference_steps": steps}.items() if value}
        progress = _Progress()
        rate = frame_rate or model.info.defaults["frame_rate"]  # an IMAGE has none
        latents = model.sample(
            context,
            on_step=progress.glances_of(model),
            negative=negative,
            image=None if first_image is None else values.picture_of(first_image, 0),
            last_image=None if last_image is None else values.picture_of(last_image, -1),
            sound=None if audio is None else values.sound_of(audio),
            film=None if film is None else values.film_of(film, rate, film_audio),
            progress=progress,
            **{**given, "seed": seed, **(options or {})},
        )
        return latents, values.settings_of(latents)


class Decode:
    """Turns latents into pictures and sound."""

    CATEGORY, FUNCTION = _CATEGORY, "decode"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "AUDIO", "FLOAT"), ("images", "audio", "frame_rate")
    DESCRIPTION = "Turns a clip into pictures and sound, for the nodes of ComfyUI."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs of the node."""
        return {"required": {"model": (_MODEL,), "latents": (_LATENTS,)}}

    def decode(self, model: sdltx.Pipeline, latents: sdltx.Latents) -> tuple[Any, Any, float]:
        """Returns pictures, sound and how many pictures there are per second."""
        clip = model.decode(latents, progress=_Progress())
        return values.images_of(clip.frames), values.audio_of(clip.audio, clip.sample_rate), float(clip.frame_rate)


class Save:
    """Decodes latents straight into a file, which keeps how it was made."""

    CATEGORY, FUNCTION, OUTPUT_NODE = _CATEGORY, "save", True
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("path",)
    DESCRIPTION = "Writes the clip into ComfyUI's output folder; sdltx-cli generate --from repeats it."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs of the node."""
        return {
            "required": {
                "model": (_MODEL,),
                "latents": (_LATENTS,),
                "filename_prefix": ("STRING", {"default": "sdltx/clip"}),
                "format": (["mp4", "webm", "webp", "gif", "wav"], {}),
            }
        }

    def save(self, model: sdltx.Pipeline, latents: sdltx.Latents, filename_prefix: str, format: str) -> dict[str, Any]:
        """Returns the file as ComfyUI shows it."""
        import folder_paths

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        path = Path(folder) / f"{name}_{counter:05}_.{format}"
        model.decode(latents, progress=_Progress()).save(path)
        shown = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        return {"ui": {"images": [shown], "animated": (True,)}, "result": (str(path),)}


NODE_CLASS_MAPPINGS = {
    "SdltxLoad": Load,
    "SdltxEncode": Encode,
    "SdltxOption": Option,
    "SdltxSample": Sample,
    "SdltxDecode": Decode,
    "SdltxSave": Save,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SdltxLoad": "Load model (sdltx)",
    "SdltxEncode": "Encode prompt (sdltx)",
    "SdltxOption": "Option (sdltx)",
    "SdltxSample": "Make clip (sdltx)",
    "SdltxDecode": "Decode clip (sdltx)",
    "SdltxSave": "Save clip (sdltx)",
}
