"""Splits and test mixtures for data that comes without: they depend on the ids only, never on chance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from avsep_zoo.data.clip import Clip

__all__ = ["hash_split", "pair_up"]

_MIXTURES = 250  # as many as the official list of MUSIC has


def _place(identity: str) -> float:
    """A number in [0, 1) that is always the same for an id, and even over ids."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def hash_split(classes: Mapping[str, str]) -> dict[str, str]:
    """Deal ids out to ``train`` (80 %), ``val`` and ``test`` (10 % each) by the SHA-256 of the id.

    Every class keeps a training id; one with three ids or more has at least one of each. Otherwise an id stays
    where it is whatever else is added.

    Args:
        classes: id -> class.

    Returns:
        id -> split.
    """
    ids: dict[str, list[str]] = {}
    for identity, label in classes.items():
        ids.setdefault(label, []).append(identity)
    out: dict[str, str] = {}
    for members in ids.values():
        members.sort(key=lambda identity: (_place(identity), identity))
        tested = sum(_place(identity) >= 0.9 for identity in members)
        validated = sum(_place(identity) >= 0.8 for identity in members) - tested
        if len(members) >= 3:
            tested = min(max(tested, 1), len(members) - 2)
            validated = min(max(validated, 1), len(members) - 1 - tested)
        else:
            tested = min(tested, len(members) - 1)
            validated = min(validated, len(members) - 1 - tested)
        trained = len(members) - tested - validated
        splits = ["train"] * trained + ["val"] * validated + ["test"] * tested
        out |= dict(zip(members, splits, strict=True))
    return out


def _alike(a: Clip, b: Clip) -> bool:
    return a.audio == b.audio or bool(set(a.labels) & set(b.labels))


def pair_up(clips: Sequence[Clip], alike: Callable[[Clip, Clip], bool] = _alike) -> list[tuple[Clip, Clip]]:
    """Pairs of clips that are not alike (by default: of different classes), the same for the same clips.

    The clips come first in turn, every one once, then again until there are 250 pairs. No pair comes twice, in
    whatever order; a clip whose next 1000 others are all alike is passed over.
    """
    ordered = sorted(clips, key=lambda clip: (_place(clip.id), clip.id))
    count, seen = len(ordered), set[frozenset[str]]()
    pairs: list[tuple[Clip, Clip]] = []
    for turn in range(count - 1):
        before = len(pairs)
        for place, first in enumerate(ordered):
            if turn and len(pairs) >= _MIXTURES:
                return pairs
            for step in range(min(count - 1, 1000)):
                second = ordered[(place + 1 + (turn + step) % (count - 1)) % count]
                pair = frozenset((first.id, second.id))
                if pair not in seen and not alike(first, second):
                    seen.add(pair)
                    pairs.append((first, second))
                    break
        if len(pairs) == before:
            break
    return pairs
