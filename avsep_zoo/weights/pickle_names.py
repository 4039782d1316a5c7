"""The classes and functions that a pickle asks for, by name, found without running it."""

from __future__ import annotations

import contextlib
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["Asked", "asked"]

_PICKLES = 5  # in a file of torch.save before 1.6: magic number, version, system, content, keys of storages
_TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
    r"|torch\.(Size|Tensor|device|bool|b?float\d+\w*|complex\d+|u?int\d+|qu?int\d+\w*|bits\w+|per_(tensor|channel)_\w+)"
    r"|torch\.(cuda\.)?\w+(Storage|Tensor)|torch\.storage\.\w+Storage|torch\._utils\._rebuild_\w+"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
)
"""What torch.save names for tensors and plain containers; torch.load has a list of its own besides."""
_LONGEST = 80


@dataclass(frozen=True)
class Asked:
    """What the pickles of a file ask for.

    Args:
        names: of classes and functions, except those that tensors and plain containers need.
        protocol: of pickle, the highest one.
        zipped: whether it is a zip file, as ``torch.save`` writes them since 1.6.
    """

    names: frozenset[str]
    protocol: int
    zipped: bool


def asked(file: Path) -> Asked:
    """Read the pickles of a file of ``torch.save``, zipped or not, or of a plain pickle, as far as they are whole.

    Raises:
        zipfile.BadZipFile: the file begins as a zip file and does not end as one.
        ValueError: the zip file is none of ``torch.save``: a program, compressed, or without a pickle.
    """
    names: set[str] = set()
    with file.open("rb") as stream:
        zipped = stream.read(4) == b"PK\3\4"
        stream.seek(0)
        protocols = _zipped(stream, names) if zipped else _collect(stream, names, most=_PICKLES)
    unusual = frozenset(_shown(name) for name in names if not _TENSORS.fullmatch(name))
    return Asked(unusual, max(protocols, default=0), zipped)


def _zipped(stream: IO[bytes], names: set[str]) -> list[int]:
    """Add the names in the pickles of a zip file; return their protocols."""
    with zipfile.ZipFile(stream) as archive:
        records = archive.infolist()
        if any(record.filename.endswith("/constants.pkl") for record in records):
            raise ValueError("it is a TorchScript archive, which is a program")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("it is a compressed zip file")
        pickles = [record for record in records if record.filename.endswith(".pkl")]
        if not pickles:
            raise ValueError("it is a zip file of something else")
        protocols = []
        for record in pickles:
            with archive.open(record) as content:
                protocols += _collect(content, names)
    return protocols


def _collect(stream: IO[bytes], names: set[str], *, most: int = 1) -> list[int]:
    """Add the names in pickles that follow each other, up to what is none; return their protocols."""
    protocols: list[int] = []
    # Where no pickle follows, or it is cut short, torch.load says so.
    with contextlib.suppress(ValueError, IndexError, OverflowError, MemoryError, EOFError):
        for _ in range(most):
            protocols.append(0)
            strings = ["", ""]
            memo: dict[int, str] = {}
            value: Any
            for opcode, value, _place in pickletools.genops(stream):
                if opcode.name == "PROTO":
                    protocols[-1] = value
                elif opcode.name in ("GLOBAL", "INST"):
                    names.add(_present(*str(value).split(" ", 1), protocol=protocols[-1]))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = strings[-1]
                elif opcode.name.endswith("PUT"):
                    memo[value] = strings[-1]
                elif opcode.name.endswith("GET"):
                    strings.append(memo.get(value, ""))
                elif "UNICODE" in opcode.name or "STRING" in opcode.name:
                    strings.append(str(value))
                del strings[:-2]
    return protocols


def _present(module: str, name: str = "", *, protocol: int) -> str:
    """The name in Python 3 of what a pickle names as in Python 2, as those of protocols below 3 do."""
    if protocol < 3:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _shown(name: str) -> str:
    """As it can be printed."""
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return short if re.fullmatch(r"[\w.<>]+", short) else repr(short)
