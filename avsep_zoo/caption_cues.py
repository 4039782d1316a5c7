"""From what a user says to cues: the sources a caption names, or all but what it leaves out."""

from __future__ import annotations

import re

from avsep_zoo.cue import Cue
from avsep_zoo.data.captions import parse_caption
from avsep_zoo.errors import CueError

__all__ = ["cues_of_caption"]

_BUT = r"(?:but|except|excluding|besides|minus|without|other than|apart from|aside from)"
_ALL = r"(?:everything|anything|all)(?: the)?(?: (?:sounds?|sources?|instruments?))?"
_NO = r"(?:no(?! one\b)|not(?! (?:only|far|long)\b)|without|except|excluding|remove|mute|leave out)"
_NEGATIVE = re.compile(rf"(?:{_ALL},? {_BUT}|(?:but )?{_NO})(?: for)?(?: not)?(?=\s|$)", re.IGNORECASE)
_AGAIN = re.compile(rf"(,|\band|\bor|\bnor)\s+(?:but )?{_NO}(?: for)?(?=\s)", re.IGNORECASE)
_INNER_THEN = re.compile(r"(?<=\w)then|then(?=\w)")
_KEPT_THEN = "th\u2060en"  # parse_caption goes into words, too, and would make "auic" of "authentic"
_EDGES = " ,.;:!?"


def cues_of_caption(text: str) -> list[Cue]:
    """The cues of what a text says: one per source, or one of all but what it leaves out.

    ``"a dog barks while a man speaks"`` names two sources: they are the phrases of
    :func:`avsep_zoo.data.captions.parse_caption`, each a cue with that text.

    A text that begins with ``everything but``, ``all except``, ``anything but``, ``without``, ``no``, ``not``,
    ``remove``, ``mute`` or the like is negative as a whole: what follows stays one text, so ``"everything but the
    violin and the flute"`` is one negated cue with the text ``"the violin and the flute"``, the recording without
    both. So is a phrase of a longer caption that begins like this (``"a man speaks, no drums"``). Inside a phrase such
    words are part of it.

    Upper and lower case, and punctuation at the ends, do not matter. What is said twice is one cue.

    Raises:
        CueError: the text is no text, names nothing or leaves out nothing.
    """
    if not isinstance(text, str):
        raise CueError(f"The text is a {type(text).__name__}; give words, as in 'a violin plays while a flute sings'.")
    said = " ".join(text.split()).strip(_EDGES)
    if _NEGATIVE.match(said):
        return [_cue(said, text)]
    caption = _INNER_THEN.sub(_KEPT_THEN, said.lower())
    phrases = [phrase.replace(_KEPT_THEN, "then").strip(_EDGES) for phrase in parse_caption(caption)]
    cues: dict[tuple[bool, str], Cue] = {}
    for phrase in phrases:
        if phrase:
            cue = _cue(phrase, text)
            cues.setdefault((cue.negated, str(cue.text).casefold()), cue)
    if not cues:
        raise CueError(f"The text {text!r} names nothing; say what sounds, as in 'a violin plays while a flute sings'.")
    return list(cues.values())


def _cue(phrase: str, text: str) -> Cue:
    """The cue of one phrase of ``text``."""
    negative = _NEGATIVE.match(phrase)
    if negative is None:
        return Cue(text=phrase)
    without = _AGAIN.sub(r"\1", phrase[negative.end() :]).strip(_EDGES)
    if not without:
        raise CueError(f"The text {text!r} does not say what to leave out; name it, as in 'everything but the violin'.")
    return Cue(text=without, negated=True)
