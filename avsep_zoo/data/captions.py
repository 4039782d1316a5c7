"""From a caption to phrases that name its sources, by the rules that BiModalSep parses AudioCaps with."""

from __future__ import annotations

__all__ = ["parse_caption"]

_SEPARATORS = (
    " and is followed by",
    " followed by ",
    " after which",
    " which is ",
    " proceeded by ",
    " at a close distance",
    " and ",
    ", ",
    " as ",
    " while ",
    " then ",
    " with ",
    " before ",
    " after ",
    " during ",
    " nearby ",
    " over ",
    " among ",
    " precedes ",
    " proceeded ",
    " which ",
)
_ONE_SOUND = ("on and off", "man and woman", "and is", "bells and a horn", "clanking and clunking", "and continuously")


def parse_caption(caption: str) -> list[str]:
    """Split ``"A dog barks and a bell rings"`` into ``["A dog barks", "A bell rings"]``.

    Oddities are kept: ``then`` goes inside words, too.

    Source: Mahmud et al., BiModalSep, ICLR 2024, its official code.
    """
    pieces = [caption]
    for separator in _SEPARATORS:
        split: list[str] = []
        for piece in pieces:
            whole = separator == " and " and any(words in piece for words in _ONE_SOUND)
            split += [piece] if whole else piece.split(separator)
        pieces = split
    pieces = [piece.strip() for piece in pieces]
    pieces = [piece.replace("then ", "").replace("then", "").replace(",", "") for piece in pieces if piece]
    pieces = [piece.capitalize().strip() for piece in pieces if piece.strip()]
    pieces = [piece.replace("And ", "").capitalize().strip() for piece in pieces]
    return [piece for piece in pieces if piece]
