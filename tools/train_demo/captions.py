"""Captions of scenes: one grammar with synonyms."""

from __future__ import annotations

import numpy as np
from scenes import Item, Scene, pick

WORDS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "medium"),
    "large": ("large", "big", "huge"),
    "right": ("moves right", "moves to the right", "slides to the right", "goes right", "drifts right", "moving right"),
    "left": ("moves left", "moves to the left", "slides to the left", "goes left", "drifts left", "moving left"),
    "up": ("moves up", "rises", "goes up", "floats upward", "moving up", "moves upward"),
    "down": ("moves down", "falls", "goes down", "sinks downward", "moving down", "moves downward"),
    "still": ("stays still", "does not move", "sits still", "stands still", "is motionless", "rests"),
    "bounce": ("bounces", "bounces up and down", "is bouncing", "hops up and down", "jumps up and down"),
    "grow": ("grows", "grows larger", "gets bigger", "expands", "is growing"),
    "shrink": ("shrinks", "gets smaller", "is shrinking", "becomes smaller"),
    "dark": ("a dark background", "a black background", "a dark backdrop"),
    "gray": ("a gray background", "a grey background", "a gray backdrop"),
    "light": ("a light background", "a bright background", "a pale background"),
    "navy": ("a navy background", "a dark blue background", "a navy blue backdrop"),
    "forest": ("a dark green background", "a forest green background", "a forest background"),
    "dusk": ("a dusk sky", "a sunset gradient", "a purple gradient background"),
    "low_tone": ("a low hum", "a deep hum", "a low tone", "a low humming sound", "a steady low note"),
    "mid_tone": ("a mid tone", "a medium tone", "a steady middle tone", "a mid-pitched tone"),
    "high_tone": ("a high tone", "a steady high tone", "a high-pitched tone", "a high whistle"),
    "low_beep": ("a low beep", "low beeps", "a deep beep", "low beeping"),
    "mid_beep": ("a mid beep", "medium beeps", "a mid-pitched beep", "a beep"),
    "high_beep": ("a high beep", "high beeps", "a high-pitched beep", "high beeping"),
    "rising": ("a rising tone", "a rising pitch", "a tone going up", "an ascending scale"),
    "falling": ("a falling tone", "a falling pitch", "a tone going down", "a descending scale"),
    "click": ("a click at each bounce", "a click on every bounce", "clicks at every bounce", "a tap on each bounce"),
    "silence": ("no sound", "silence", "no audio", "in silence"),
}
# Of two shapes that move alike.
TOGETHER = {
    "right": ("move right", "move to the right"),
    "left": ("move left", "move to the left"),
    "up": ("move up", "rise"),
    "down": ("move down", "fall"),
}
PLACES = ("over", "on", "against", "across", "in front of")
WITH_SOUND = (
    ", with {}",
    " with {}",
    ", and {}",
    ". Sound: {}",
    ". The sound is {}",
    ", accompanied by {}",
    ", {}",
    ", making {}",
)
LEADS = ((0.08, "a video of "), (0.14, "an animation where "), (0.18, "a clip of "))


def _noun(item: Item, rng: np.random.Generator) -> str:
    words = [item.colour, pick(rng, WORDS[item.shape])]
    if item.size_said:
        words.insert(0, pick(rng, WORDS[item.size]))
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _action(scene: Scene, rng: np.random.Generator) -> str:
    if len(scene.items) == 1:
        return f"{_noun(scene.items[0], rng)} {pick(rng, WORDS[scene.items[0].motion])}"
    a, b = scene.items
    if a.motion == b.motion and a.motion != "still":
        return f"{_noun(a, rng)} and {_noun(b, rng)} {pick(rng, TOGETHER[a.motion])}"
    first = f"{_noun(a, rng)} {pick(rng, WORDS[a.motion])}"
    return f"{first} and {_noun(b, rng)} {pick(rng, WORDS[b.motion])}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of the many that fit."""
    text, tail = _action(scene, rng), ""
    background, place = pick(rng, WORDS[scene.background]), pick(rng, PLACES)
    if scene.background_said:
        if rng.random() < 0.15:
            text = f"{place if place != 'across' else 'on'} {background}, {text}"
        else:
            text = f"{text} {place} {background}"
    if scene.sound_said:
        sound = pick(rng, WORDS[scene.sound])
        if sound == "in silence":
            tail = pick(rng, (", in silence", " in silence"))
        else:
            tail = pick(rng, WITH_SOUND).format(sound)
    text += tail
    lead = rng.random()
    text = next((words for below, words in LEADS if lead < below), "") + text
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.3:
        text += "."
    return text
