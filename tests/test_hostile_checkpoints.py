"""Files that would run something when they are unpickled are refused by the name of it, and nothing runs."""

from __future__ import annotations

import argparse
import builtins
import collections
import importlib
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_content, read_tensors, tensors_of

Save = Callable[[Any, Path], None]
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "a.steps": torch.tensor(3)}


class Call:
    """Pickles as a call of a function, whose result gets the state and the items."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, items: Any = None) -> None:
        self.call = function, arguments, state, None, items

    def __reduce__(self) -> Any:
        return self.call


def zipped(content: Any, file: Path) -> None:
    torch.save(content, file)


def legacy(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def plain(content: Any, file: Path) -> None:
    file.write_bytes(pickle.dumps(content, protocol=2))


def oldest(content: Any, file: Path) -> None:
    file.write_bytes(pickle.dumps(content, protocol=0))


def newest(content: Any, file: Path) -> None:
    """A pickle of protocol 5, where names are taken from the stack."""
    file.write_bytes(pickle.dumps(content, protocol=5))


def archive(data: bytes, file: Path) -> None:
    """As torch.save, around any pickle."""
    torch.save({}, file.with_suffix(".empty"))
    with zipfile.ZipFile(file.with_suffix(".empty")) as empty, zipfile.ZipFile(file, "w") as made:
        for record in empty.infolist():
            made.writestr(record.filename, data if record.filename.endswith("data.pkl") else empty.read(record))


def refused(file: Path, match: str, *, allowed: tuple[str, ...] = ()) -> None:
    """In one sentence that names the file."""
    with pytest.raises(WeightsError, match=match) as error:
        tensors_of(read_content(file, allowed=allowed), file)
    sentence = str(error.value)
    assert re.fullmatch(r"[^\n]{,500}\.", sentence) and ". " not in sentence, sentence
    assert file.name in sentence


@pytest.mark.parametrize("save", [zipped, legacy, plain, oldest, newest])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, r"(posix|nt)\.system"),
        (builtins.eval, r"builtins\.eval"),
        (builtins.exec, r"builtins\.exec"),
        (subprocess.Popen, r"subprocess\.Popen"),
        (importlib.import_module, r"importlib\.import_module"),
        (pickle.loads, r"_?pickle\.loads"),
        (torch.load, r"torch\.(serialization\.)?load"),
        (torch.storage._load_from_bytes, r"torch\.storage\._load_from_bytes"),
        (Path.touch, r"builtins\.getattr|pathlib\.Path\.touch"),
    ],
)
def test_a_call_is_refused_by_its_name(save: Save, function: Any, named: str, tmp_path: Path) -> None:
    """Beside good tensors, in every format; what it would write is not there."""
    marker = tmp_path / "marker"
    write = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    arguments: dict[Any, Any] = {
        os.system: f"touch {marker}",
        subprocess.Popen: ["touch", str(marker)],
        importlib.import_module: "antigravity",
        pickle.loads: pickle.dumps(Call(os.system, f"touch {marker}")),
        torch.storage._load_from_bytes: pickle.dumps(Call(os.system, f"touch {marker}")),
        Path.touch: marker,
    }
    file = tmp_path / "run.pth"
    tensors = STATE if save in (zipped, legacy) else {}
    save({"state_dict": tensors, "epoch": Call(function, arguments.get(function, write))}, file)
    refused(file, rf"run\.pth' was not loaded: it asks for .*{named}.* may run anything; do not use it")
    assert not marker.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("wrap", [archive, lambda data, file: file.write_bytes(data)])
def test_a_name_that_is_put_together(wrap: Callable[[bytes, Path], Any], tmp_path: Path) -> None:
    """STACK_GLOBAL takes module and name from the stack, to where they come from the memo, in the wrong order."""
    marker = tmp_path / "marker"
    command = f"touch {marker}".encode()
    strings = b"\x8c\x06system\x940\x8c\x05posix\x940"
    call = b"X" + struct.pack("<I", len(command)) + command + b"\x85R."
    file = tmp_path / "stacked.pth"
    wrap(b"\x80\x04" + strings + b"h\x01h\x00\x93" + call, file)
    refused(file, r"it asks for posix\.system, which")
    wrap(b"\x80\x04" + strings + b"j\x01\x00\x00\x00j\x00\x00\x00\x00\x93" + call, file)
    refused(file, r"it asks for posix\.system, which")
    assert not marker.exists()


@pytest.mark.parametrize("opening", [b"\x80\x02", b""])
def test_other_ways_to_call(opening: bytes, tmp_path: Path) -> None:
    """INST and OBJ, and EXT of the registry of extensions."""
    marker = tmp_path / "marker"
    file = tmp_path / "a.pth"
    file.write_bytes(opening + b"(S'touch %s'\nios\nsystem\n." % str(marker).encode())
    refused(file, r"it asks for os\.system, which")
    file.write_bytes(opening + b"(cos\nsystem\nS'touch %s'\no." % str(marker).encode())
    refused(file, r"it asks for os\.system, which")
    file.write_bytes(opening + b"\x82\x01.")
    refused(file, r"cannot be read as tensors \(.*[Uu]nsupported operand 130")
    assert not marker.exists()


def test_all_names_are_told(tmp_path: Path) -> None:
    """Three of them, and how many more; one that could disturb a terminal is quoted."""
    torch.save([Call(os.system, ""), Call(eval, ""), Call(exec, ""), Call(subprocess.run, [])], tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"asks for builtins\.eval, builtins\.exec, posix\.system and 1 more, which")
    (tmp_path / "a.pth").write_bytes(b"\x80\x02cnowhere\n\x1b[31mred\n.")
    refused(tmp_path / "a.pth", r"asks for 'nowhere\.\\x1b\[31mred', which")


def test_a_second_pickle_is_read_too(tmp_path: Path) -> None:
    """In the old format there are five, and calls in any of them are refused."""
    file = tmp_path / "a.pth"
    legacy(STATE, file)
    good, call = file.read_bytes(), pickle.dumps(Call(os.system, f"touch {tmp_path / 'marker'}"), protocol=2)
    stream = io.BytesIO(good)
    ends = []
    for _ in range(3):
        pickle.Unpickler(stream).load()
        ends.append(stream.tell())
    for end in (0, *ends):
        file.write_bytes(good[:end] + call + good[end:])
        refused(file, r"asks for posix\.system, which")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("save", [zipped, legacy])
def test_an_allowed_name_is_never_made(save: Save, tmp_path: Path) -> None:
    """Nor set up by the state it carries; a dictionary stands in its place, and nothing is imported."""
    module = ModuleType("a_trainer_that_is_not_installed")
    marker = tmp_path / "marker"

    class Settings(dict[str, Any]):
        def __setstate__(self, state: Any) -> None:
            marker.touch()

        def __setitem__(self, name: str, value: Any) -> None:
            marker.touch()

    Settings.__module__, Settings.__qualname__ = module.__name__, "Settings"
    module.Settings = Settings  # type: ignore[attr-defined]
    settings = Settings(rate=11025)
    settings.__dict__["command"] = f"touch {marker}"
    content = {"state_dict": STATE, "settings": settings, "options": argparse.Namespace(keys=1, values=[2])}
    sys.modules[module.__name__] = module
    try:
        save(content, tmp_path / "a.ckpt")
    finally:
        del sys.modules[module.__name__]
    allowed = (f"{module.__name__}.Settings", "argparse.Namespace")
    found = read_content(tmp_path / "a.ckpt", allowed=allowed)
    assert dict(found["settings"]) == {"rate": 11025}
    assert all(type(found[name]) is collections.OrderedDict for name in ("settings", "options"))
    torch.testing.assert_close(tensors_of(found, tmp_path / "a.ckpt"), STATE, rtol=0, atol=0)
    assert module.__name__ not in sys.modules and not marker.exists()
    refused(tmp_path / "a.ckpt", r"asks for a_trainer_that_is_not_installed\.Settings, which", allowed=allowed[1:])


def test_a_call_within_the_state_of_an_allowed_one(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    harm = argparse.Namespace(later=Call(os.system, f"touch {marker}"))
    torch.save({"state_dict": STATE, "options": harm}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", r"asks for posix\.system, which", allowed=("argparse.Namespace",))
    assert not marker.exists()


def test_attributes_do_not_hide_what_a_tensor_is(tmp_path: Path) -> None:
    """A file may set attributes of its tensors and dictionaries, in the names of methods; they are gone."""
    weight: Any = nn.Parameter(torch.full((2,), torch.nan))
    weight.is_floating_point = weight.detach = weight.added = set
    hidden = dict.fromkeys(("get", "items", "values", "keys"), set)
    state = Call(collections.OrderedDict, state=hidden, items=iter([*STATE.items(), ("b", weight)]))
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert read_content(tmp_path / "a.pth")["state_dict"].items() == set()
    found = read_tensors(tmp_path / "a.pth")
    assert list(found) == [*STATE, "b"]
    assert type(found["b"]) is Tensor and not found["b"].requires_grad and found["b"].is_floating_point() is True
    assert not hasattr(found["b"], "added")


def test_what_other_packages_allow_is_not_allowed_here(tmp_path: Path) -> None:
    """And it is still allowed there afterwards, whether the file could be read or not."""
    torch.save({"a": argparse.Namespace(b=1)}, tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "b.pth")
    allowed = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([argparse.Namespace, np.dtype]):
        refused(tmp_path / "a.pth", "asks for argparse.Namespace")
        read_tensors(tmp_path / "b.pth")
        found = read_content(tmp_path / "a.pth", allowed=("argparse.Namespace",))
        assert type(found["a"]) is collections.OrderedDict
        assert set(torch.serialization.get_safe_globals()) >= allowed | {argparse.Namespace, np.dtype}
    assert not {argparse.Namespace, np.dtype} & set(torch.serialization.get_safe_globals())


def test_tar_files_of_the_first_versions(tmp_path: Path) -> None:
    """PyTorch 0.1 wrote them; nothing in one is unpickled."""
    call = pickle.dumps(Call(os.system, f"touch {tmp_path / 'marker'}"), protocol=2)
    with tarfile.open(tmp_path / "d.pth", "w:", format=tarfile.PAX_FORMAT) as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            (tmp_path / name).write_bytes(call)
            tar.add(tmp_path / name, arcname=name)
    refused(tmp_path / "d.pth", r"\(.*legacy \.tar format")
    assert not (tmp_path / "marker").exists()
