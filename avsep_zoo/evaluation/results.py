"""Results of an evaluation on disk: a line per scored mixture as it is finished, and the document about all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from avsep_zoo.data.clip import Clip
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.protocols import Protocol
from avsep_zoo.media.wav import whole_file
from avsep_zoo.separation import safe_names

__all__ = ["ItemFile", "fingerprint", "folder_name", "write_document"]

FORMAT = 1


def fingerprint(
    contender: Contender,
    protocol: Protocol,
    setting: Setting,
    mixtures: Sequence[Sequence[Clip]],
    *,
    use: frozenset[str],
    consistency: bool,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what scores depend on, as plain JSON: equal ones may be mixed, others not."""
    ids = json.dumps([[clip.id for clip in clips] for clips in mixtures])
    settings = {name: value for name, value in asdict(protocol).items() if name not in ("summary", "source", "lists")}
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "model": contender.name if contender.card is None else contender.card.name,
                "weights": contender.sha256,
                "parts": contender.parts,
                "protocol": settings,
                "setting": asdict(setting),
                "list": hashlib.sha256(ids.encode()).hexdigest(),
                "use": sorted(use & contender.reads),
                "consistency": consistency,
                "sampling": sampling,
            }
        )
    )
    return plain


def folder_name(contender: Contender) -> str:
    """Return the name of a contender as one of a folder."""
    [name] = safe_names([contender.name])
    return name


class ItemFile:
    """Records of scored mixtures, a JSON line each, behind a first line that says what they depend on.

    Args:
        path: of the file; None keeps the records in memory only. The half-written last line of a run that was
            killed is dropped.
        settings: see :func:`fingerprint`.

    ``rows`` holds the records by their position in the list.

    Raises:
        DataError: the file is of other settings, or damaged.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path, self.rows = path, dict[int, dict[str, Any]]()
        self._stream: IO[bytes] | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a+b")
        try:
            whole = self._read(path, settings)
            self._stream.truncate(whole)
            if not whole:
                self._write({"format": FORMAT, "settings": settings})
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, position: int, record: Mapping[str, Any]) -> None:
        """Add the record of the mixture at ``position``; it is with the system when this returns."""
        self.rows[position] = {**record}
        if self._stream is not None:
            self._write({"position": position, **record})

    def _write(self, content: Mapping[str, Any]) -> None:
        assert self._stream is not None
        self._stream.write(json.dumps(content).encode() + b"\n")
        self._stream.flush()

    def _read(self, path: Path, settings: Mapping[str, Any]) -> int:
        """Read the records; return the bytes of whole lines."""
        lines = path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        if not lines:
            return 0
        head = _parsed(path, 1, lines[0])
        if head.get("format") != FORMAT or not isinstance(head.get("settings"), dict):
            raise DataError(f"{str(path)!r} does not begin with the settings of an evaluation; remove it.")
        changed = [name for name in settings if head["settings"].get(name) != settings[name]]
        if changed:
            raise DataError(
                f"{str(path)!r} holds scores of another evaluation ({', '.join(changed)} changed); give another "
                "folder to -o, or remove it."
            )
        for number, line in enumerate(lines[1:], 2):
            record = _parsed(path, number, line)
            position = record.pop("position", None)
            if not isinstance(position, int) or not ("skipped" in record or "sdr" in record):
                raise DataError(f"Line {number} of {str(path)!r} is no scored mixture; remove the line or the file.")
            self.rows[position] = record
        return sum(map(len, lines))


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DataError(f"Line {number} of {str(path)!r} is damaged; remove the line or the file.")
    return content


def write_document(results: Mapping[str, Any], target: Path) -> None:
    """Write the results document as JSON, as a whole or not at all."""
    with whole_file(target) as part:
        part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
