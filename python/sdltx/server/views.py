"""How videos are told: OpenAI's object, with what is more in ``sdltx``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .scheduler import Scheduler
from .store import COMPLETED, IN_PROGRESS, OVER, QUEUED, Video


def frames_of(plan: Mapping[str, Any]) -> int:
    """Returns how many pictures come out, as far as is known."""
    frames: int = plan.get("result_frames") or plan["num_frames"]
    return frames


def shape_of(plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns size (pixels, WxH) and seconds as OpenAI's objects have them: texts."""
    seconds = round(frames_of(plan) / plan["frame_rate"], 2)
    return {"size": f"{plan['width']}x{plan['height']}", "seconds": f"{seconds:g}"}


def video_object(video: Video, scheduler: Scheduler) -> dict[str, Any]:
    """Returns a video as it is sent."""
    plan, live = video.plan, scheduler.live.get(video.id)
    progress = 100 if video.status == COMPLETED else 0
    left = None
    if video.status == IN_PROGRESS and live is not None:
        progress = min(99, int(100 * live.fraction))
        left = live.left
    elif video.status == QUEUED:
        left = scheduler.seconds_of(plan)
    making = live if video.status not in OVER else None
    return {
        "id": video.id,
        "object": "video",
        "model": scheduler.engine.model["model"],
        "status": video.status,
        "progress": progress,
        "created_at": int(video.created),
        "completed_at": None if video.completed is None else int(video.completed),
        "expires_at": _expires_at(video, scheduler.settings.keep_days),
        "prompt": plan.get("prompt") or video.request["prompt"],
        **shape_of(plan),
        "remixed_from_video_id": plan.get("remixed_from"),
        "error": video.error,
        "sdltx": {
            "request": video.request,
            "seed": plan["seed"],
            "num_frames": frames_of(plan),
            "frame_rate": plan["frame_rate"],
            "recipe": plan["recipe"],
            "num_inference_steps": plan["num_inference_steps"],
            "task": plan["task"],
            "format": video.file.rpartition(".")[2],
            "doubts": plan.get("doubts", []),
            "memory": plan.get("memory"),
            "started_at": video.started,
            "queue_position": scheduler.position(video) if video.status == QUEUED else None,
            "phase": making.phase if making else None,
            "phase_done": making.done if making else None,
            "phase_total": making.total if making else None,
            "seconds_left": left,
            "preview": making.preview or None if making else None,
        },
    }


def _expires_at(video: Video, days: float | None) -> int | None:
    return None if days is None or video.completed is None else int(video.completed + days * 86400)
