"""What checkpoints of other people hold is read as it is, or told in one sentence that names the file."""

from __future__ import annotations

import collections
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_content, read_settings, read_tensors, tensors_of

Save = Callable[[Any, Path], None]
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "a.steps": torch.tensor(3)}


def zipped(content: Any, file: Path) -> None:
    torch.save(content, file)


def legacy(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def save_safetensors(state: dict[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, file)


def refused(file: Path, match: str, *, allowed: tuple[str, ...] = ()) -> None:
    """In one sentence that names the file."""
    with pytest.raises(WeightsError, match=match) as error:
        tensors_of(read_content(file, allowed=allowed), file)
    sentence = str(error.value)
    assert re.fullmatch(r"[^\n]{,500}\.", sentence) and ". " not in sentence, sentence
    assert file.name in sentence


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items()
    )


@pytest.mark.parametrize("save", [zipped, legacy])
def test_truncated(save: Save, tmp_path: Path) -> None:
    """Wherever it ends: in the pickles, in the numbers, one byte before the end."""
    save({"state_dict": STATE, "epoch": 3}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for share in (0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0):
        file = tmp_path / "cut.pth"
        file.write_bytes(whole[: int(share * (len(whole) - 1))])
        refused(file, r"cut\.pth' cannot be read as tensors \([^)]+.* cut short, damaged or no checkpoint")
    assert same(read_tensors(tmp_path / "whole.pth"), STATE)


def test_damaged_anywhere(tmp_path: Path) -> None:
    """A byte that is another one ends in a sentence or in tensors, never in another error."""
    rng = np.random.default_rng(0)
    for save in (zipped, legacy, lambda content, file: save_safetensors(content["state_dict"], file)):
        file = tmp_path / "a.safetensors" if save not in (zipped, legacy) else tmp_path / "a.pth"
        save({"state_dict": STATE, "history": {"sdr": [np.float64(7.25)]}}, file)
        whole = file.read_bytes()
        told = 0
        for place in rng.integers(0, len(whole), 150):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
            try:
                tensors_of(read_content(file), file)
            except WeightsError as error:
                told += 1
                assert file.name in str(error) and "\n" not in str(error) and ". " not in str(error), str(error)
        assert 0 < told < 150


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("empty.pth", b"", r"tensors \("),
        ("empty.safetensors", b"", r"tensors \("),
        ("page.pth", b"<!DOCTYPE html><html>404</html>", r"tensors \("),
        ("words.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"tensors \("),
        ("garbage.safetensors", bytes(range(256)) * 8, r"tensors \(.*header"),
        ("huge.safetensors", struct.pack("<Q", 2**62) + b"{}", r"tensors \(.*header too large"),
        ("long.safetensors", struct.pack("<Q", 90_000_000) + b"{}", r"tensors \(.*header"),
        ("short.safetensors", struct.pack("<Q", 2) + b"{", r"tensors \(.*header"),
        ("words.safetensors", struct.pack("<Q", 4) + b"abcd", r"tensors \(.*header"),
        ("lies.safetensors", b"", r"tensors \("),
        ("long.pth", b"\x80\x02X\xff\xff\xff\x7fabc.", r"tensors \("),
    ],
)
def test_what_is_no_checkpoint(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    """Empty, a page, a pointer of Git LFS, headers that are garbage, too long, or promise more than there is."""
    if name == "lies.safetensors":
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        content = struct.pack("<Q", len(header)) + header
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, match)


def test_no_file(tmp_path: Path) -> None:
    """Neither a name without a file nor a folder is one."""
    refused(tmp_path / "absent.pth", r"There is no file .*absent\.pth'; give a checkpoint")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", r"folder\.pth' is a folder; give a checkpoint")


def test_archives_of_something_else(tmp_path: Path) -> None:
    """A zip of texts, a compressed zip, and a program of TorchScript."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("notes.txt", "no checkpoint")
    refused(tmp_path / "a.zip", r"\(it is a zip file of something else\)")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("b/data.pkl", b"\x80\x02X\x00\x00\x00\x01" + bytes(2**24) + b".")
    refused(tmp_path / "b.pth", r"\(it is a compressed zip file\)")
    torch.jit.ScriptModule().save(str(tmp_path / "c.pt"))
    refused(tmp_path / "c.pt", r"\(it is a TorchScript archive, which is a program\)")


def test_protocol_4(tmp_path: Path) -> None:
    """Good tensors, saved in a way that nobody reads without running it."""
    torch.save(STATE, tmp_path / "a.pth", pickle_protocol=4)
    refused(tmp_path / "a.pth", r"is pickled by protocol 4, and only 2 is read .* save what it holds by torch\.save")


@pytest.mark.parametrize("save", [zipped, legacy])
def test_what_a_training_run_keeps(save: Save, tmp_path: Path) -> None:
    """Numbers of NumPy of any kind in its history, optimiser state, sets, bytes, sizes, types and devices."""
    kinds = [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.bool_]
    content = {
        "state_dict": STATE,
        "history": {"sdr": [kind(1) for kind in kinds], "loss": collections.OrderedDict(train=0.5)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "others": [{1, 2}, b"bytes", 1j, STATE["a.weight"].shape, torch.float16, torch.device("cpu"), None, 10**30],
    }
    save(content, tmp_path / "a.pth")
    found = read_content(tmp_path / "a.pth")
    assert found["history"] == content["history"] and found["others"] == content["others"]
    assert [type(number) for number in found["history"]["sdr"]] == kinds
    assert same(tensors_of(found, tmp_path / "a.pth"), STATE)


def test_numbers_under_the_name_of_numpy_1(tmp_path: Path) -> None:
    """Files of before 2024 ask for ``numpy.core``, which a later NumPy warns of."""
    file = tmp_path / "a.pth"
    legacy({"sdr": np.float64(7.25)}, file)
    old = file.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != file.read_bytes()
    file.write_bytes(old)
    assert read_content(file) == {"sdr": 7.25}


@pytest.mark.parametrize("save", [zipped, legacy])
def test_kinds_of_tensors(save: Save, tmp_path: Path) -> None:
    """Half, bfloat16, parameters, views and tensors that share their numbers arrive as they were."""
    base = torch.arange(12.0)
    expected = {
        "half": base.half(), "bf16": base.bfloat16(), "double": base.double(), "int8": base.to(torch.int8),
        "bool": base > 3, "complex": base.to(torch.complex64), "none": torch.empty(0, 3), "one": torch.tensor(1.5),
        "view": base.view(3, 4).t(), "rows": base[4:8], "all": base,
    }  # fmt: skip
    save({"parameter": nn.Parameter(base[:3].clone()), **expected}, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth")
    assert torch.equal(found["parameter"], base[:3]) and type(found.pop("parameter")) is Tensor
    assert same(found, expected)


def test_tensors_without_plain_numbers(tmp_path: Path) -> None:
    """Sparse, quantised and empty ones are named, and can be read where nobody needs their numbers."""
    kinds = {"sparse": torch.eye(3).to_sparse(), "empty": torch.ones(3, device="meta")}
    with warnings.catch_warnings(action="ignore"):  # going to be removed from PyTorch
        kinds["quantised"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    for kind, value in kinds.items():
        file = tmp_path / f"{kind}.pth"
        torch.save({"a": torch.ones(1), "b": value}, file)
        assert read_content(file)["b"].shape == value.shape
        refused(file, rf"{kind}\.pth' holds b as a {kind} tensor; save it as a dense one")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": {"lr": 1e-3}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {"model": state, "optimizer": {}}, "model": "unet"},
        lambda state: {"model": {"model": {"state_dict": {f"module.{k}": v for k, v in state.items()}}}},
    ],
)
def test_what_a_state_dict_is_wrapped_in(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.save(wrap(STATE), tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth"), STATE)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    """Lists, other keys than names, other values than tensors, and a dictionary that holds itself."""
    itself: dict[str, Any] = {}
    itself["state_dict"] = itself
    cases = [[torch.ones(1)], torch.ones(1), 3, {"epoch": 3}, {"a": [torch.ones(1)]}, {"state_dict": None}, itself]
    cases += [{0: torch.ones(1)}, {b"a": torch.ones(1)}, {("a",): torch.ones(1)}, {"a\nb": torch.ones(1)}]
    for case in cases:
        torch.save(case, tmp_path / "a.pth")
        refused(tmp_path / "a.pth", r"a\.pth' holds no state_dict; save model\.state_dict\(\) to it")


def test_an_entry_twice(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "module.a": torch.zeros(1)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"holds a with and without 'module\.'; remove one")


def test_a_folder_of_weights(tmp_path: Path) -> None:
    """Its safetensors file is taken before a pickle; none, or several, are told."""
    for saved, match in (({}, "holds no .safetensors and no .pth file"), ({"a.pth": 0, "b.pth": 0}, r"holds 2 \.pth")):
        for name in saved:
            torch.save(STATE, tmp_path / name)
        with pytest.raises(WeightsError, match=match):
            read_tensors(tmp_path)
    save_safetensors({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_tensors(tmp_path)) == ["a"]


def test_settings(tmp_path: Path) -> None:
    """Those that are known, of the right kind; a file that is none is told."""
    assert read_settings(tmp_path, {"width": int}) == {}
    file = tmp_path / "config.json"
    file.write_text('\ufeff{"width": 3, "other": null}', encoding="utf-8")
    assert read_settings(tmp_path, {"width": int, "depth": int}) == {"width": 3}
    for content, match in (("{", "is no JSON"), ("[]", "no JSON object"), ('{"width": "3"}', "width '3'; give a int")):
        file.write_text(content)
        with pytest.raises(WeightsError, match=match):
            read_settings(tmp_path, {"width": int})
