"""Examples of a sound as cues: what is wanted sounds like another clip of its class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.segment import clip_seconds
from avsep_zoo.media import read_excerpt

__all__ = ["example_cue", "with_examples"]

_LONGEST = 10.0  # seconds of an example out of a longer file


def example_cue(example: Clip) -> dict[str, Any]:
    """Give a clip as an example of its sound, as arguments of a :class:`~avsep_zoo.Cue`.

    A clip that is a part of a longer file is read, the 10 s in its middle at most; otherwise it is the path.

    Raises:
        DataError, MediaError: the file cannot be read, is empty or ends before the clip begins.
    """
    span = clip_seconds(example)
    if not example.start and example.duration is None:
        return {"audio": example.audio}
    heard = min(span, _LONGEST)
    sound, rate = read_excerpt(example.audio, example.start + (span - heard) / 2, heard)
    return {"audio": sound, "audio_rate": rate}


def with_examples(mixtures: Iterable[Sequence[Clip]], clips: Iterable[Clip]) -> list[tuple[Clip, ...]]:
    """Give every clip of one class in the mixtures an ``example``, always the same.

    It is the next of ``clips`` of its class by id, after the last one the first, whose file is none of the mixture. A
    clip without any has no example.
    """
    by_class: dict[str, dict[str, Clip]] = {}
    for clip in clips:
        if clip.label is not None:
            by_class.setdefault(clip.label, {})[clip.id] = clip
    ordered = {label: [found[name] for name in sorted(found)] for label, found in by_class.items()}
    places = {(label, clip.id): place for label, found in ordered.items() for place, clip in enumerate(found)}

    def example(clip: Clip, mixture: Sequence[Clip]) -> Clip | None:
        found = ordered.get(clip.label or "", ())
        place = places.get((clip.label or "", clip.id), -1)
        turned = (found[(place + turn) % len(found)] for turn in range(1, len(found) + 1))
        return next((other for other in turned if all(other.audio != heard.audio for heard in mixture)), None)

    return [tuple(replace(clip, example=example(clip, mixture)) for clip in mixture) for mixture in mixtures]
