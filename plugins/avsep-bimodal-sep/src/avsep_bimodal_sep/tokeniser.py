"""RoBERTa's byte-level BPE: texts become token ids, padded and cut to one length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avsep_zoo.errors import CueError, WeightsError
from avsep_zoo.weights.hub_files import fetch

__all__ = ["BEGIN", "END", "PADDING", "TOKENISER", "Tokeniser"]

TOKENISER = "FacebookAI/roberta-base@e2da8e2f811d1448a5b465c236feacd80ffbac7b"
BEGIN, PADDING, END = 0, 1, 2
_MARKS = {"<s>": BEGIN, "<pad>": PADDING, "</s>": END}
_FILES = ("vocab.json", "merges.txt")


class Tokeniser:
    """The vocabulary and merges of a folder or of a commit on the Hub, read when it is first used.

    A text is bytes to it, whatever it says: ``</s>`` in a text is four characters and no mark.

    Source: Liu et al., RoBERTa, arXiv 1907.11692.

    Args:
        source: a folder with ``vocab.json`` and ``merges.txt``, or ``org/name@commit`` on the Hugging Face Hub.
        size: rows of the tower's table, which ids must fit.
    """

    def __init__(self, source: str, *, size: int) -> None:
        self.source, self.size = source, size
        self._bpe: Any = None

    def read(self) -> None:
        """Read the vocabulary, if that was not done before; it may be fetched for that.

        Raises:
            WeightsError: it cannot be had, or is another one.
        """
        if self._bpe is None:
            self._bpe = self._read()

    def ids(self, text: str) -> list[int]:
        """Return the ids of all tokens, without marks.

        Raises:
            WeightsError: the vocabulary cannot be had, or is another one.
            CueError: the text is no valid Unicode.
        """
        self.read()
        try:
            found: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeError) as error:
            raise CueError(f"The text {text[:40]!r} is no valid Unicode; give it without lone surrogates.") from error
        return found

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Texts as int64 (texts, length): begin, tokens, end, padding; what does not fit is cut off.

        Raises:
            WeightsError, CueError: as :meth:`ids`.
        """
        rows = np.full((len(texts), length), PADDING, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            marked = [BEGIN, *self.ids(text)[: length - 2], END]
            row[: len(marked)] = marked
        return rows

    def _read(self) -> Any:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel

        folder = self._folder()
        vocabulary, merges = (folder / name for name in _FILES)
        try:
            words = json.loads(vocabulary.read_text(encoding="utf-8"))
            marks = {mark: words.get(mark) for mark in _MARKS}
            largest = max(words.values())
            bpe = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
        except Exception as error:  # tokenizers raises plain ones
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise WeightsError(
                f"The vocabulary in {str(folder)!r} cannot be read ({why}); give another folder by the encoder's "
                "setting tokenizer."
            ) from error
        if marks != _MARKS or largest >= self.size:
            raise WeightsError(
                f"The vocabulary in {str(folder)!r} has marks {marks} and {largest + 1} entries, the text tower "
                f"{_MARKS} and {self.size}; give RoBERTa's by the setting tokenizer."
            )
        bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
        return bpe

    def _folder(self) -> Path:
        try:
            folder = fetch(self.source, patterns=_FILES, what="tokenizer files").path
        except WeightsError as error:
            raise WeightsError(f"{str(error).rstrip('.')} (the encoder's setting tokenizer).") from error
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise WeightsError(
                f"The tokenizer {self.source!r} has no {missing[0]} here; connect once, or name a folder with "
                f"{' and '.join(_FILES)} by the encoder's setting tokenizer."
            )
        return folder
