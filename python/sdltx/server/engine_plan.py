"""What a request comes to, asked while others are made."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import sdltx
from sdltx import media, sound
from sdltx.pipeline import check

# What of a plan is told.
_TOLD = (
    *("width", "height", "num_frames", "result_frames", "frame_rate", "seed", "recipe", "preset", "sampler"),
    *("num_inference_steps", "passes", "task", "audio", "video", "guidance_scale", "audio_guidance_scale"),
)


_LARGEST = 40_000_000  # pixels of a picture; 8K has 33 million


def _check_size(path: Any) -> None:
    """Raises InvalidRequestError for a picture that takes long to read, as others wait meanwhile."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except Exception:  # what is wrong is told when it is read
        return
    if width * height > _LARGEST:
        raise sdltx.InvalidRequestError(
            f"[image] {path} has {width}x{height} pixels, which is more than a server reads; scale it down"
        )


class Planner:
    """Answers with plans, or with why there is none."""

    def __init__(self, pipe: sdltx.Pipeline, tell: Callable[..., None]) -> None:
        self._pipe, self._tell = pipe, tell
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def told_of_model(self) -> dict[str, Any]:
        """Returns what is loaded, for people and programs."""
        info = self._pipe.info.to_dict()
        upscalers = self._pipe.upscalers()
        return {**info, "device": self._pipe.device, "files": self._pipe.files, "upscalers": upscalers}

    def ask(self, question: dict[str, Any]) -> None:
        """Takes a question: plan, its number; request; file, the name of what it becomes."""
        self._asked.put(question)

    def serve(self) -> None:
        """Answers for ever."""
        while True:
            self._answer(self._asked.get())

    def answer_all(self) -> None:
        """Answers what was asked meanwhile."""
        while True:
            try:
                question = self._asked.get_nowait()
            except queue.Empty:
                return
            self._answer(question)

    def _answer(self, question: dict[str, Any]) -> None:
        try:
            answer = self._planned(question["request"], question["file"])
        except sdltx.SdltxError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except MemoryError:
            answer = {"error": "OutOfMemoryError", "message": "[plan] there is no memory left to plan in"}
        self._tell(answer=question["plan"], **answer)

    def _planned(self, told: dict[str, Any], file: str) -> dict[str, Any]:
        pipe = self._pipe
        request = sdltx.Request.from_dict(told)
        for picture in request.conditions:
            _check_size(picture.image)
            picture.loaded()
        check(prompt=request.prompt, tiling=request.tiling, **request.options)
        resolved = pipe.resolve(request)
        pipe.check(request)
        if sound.is_sound(file) and not (resolved["audio"] and pipe.info["has_audio"]):
            raise sdltx.InvalidRequestError("[output] there will be no sound for a .wav")
        if media.takes_pictures(file) and not resolved["video"]:
            raise sdltx.InvalidRequestError("[output] there will be no pictures; ask for the format wav")
        if media.takes_pictures(file):
            pipe.require("video decoder")
        estimate = pipe.estimate(request.replaced(seed=resolved["seed"]))
        plan = {name: resolved[name] for name in _TOLD if name in resolved}
        plan["stages"] = [
            {name: stage[name] for name in ("width", "height", "num_frames", "num_inference_steps")}
            for stage in resolved["stages"]
        ]
        plan["length_by_prompt"] = "duration" in resolved
        return {
            "plan": plan,
            "doubts": pipe.doubts(request),
            "memory": estimate.memory,
            "misfit": next((step.misfit for step in estimate.steps if step.misfit), ""),
            "steps": [[step.step, step.operations, step.memory] for step in estimate.steps],
        }
