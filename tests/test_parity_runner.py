"""Golden cases: their weights and inputs, and running them through adapters, reported one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.numpy import save_file
from torch import nn
from typer.testing import CliRunner

from avsep_zoo.cli.parity import parity
from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.parity.recipe import draw, fill
from avsep_zoo.parity.run import run_cases
from avsep_zoo.registry import Entry, Registry

WEIGHTS = [["linear.weight", [3, 4], "float32"], ["linear.bias", [3], "float32"]]


def linear(case: Case) -> Mapping[str, Any]:
    """A real adapter: the official state dict of a linear layer, loaded strictly, applied to the input."""
    layer = nn.Linear(4, 3)
    layer.load_state_dict({k.removeprefix("linear."): v for k, v in case.state_dicts["net"].items()})
    y = layer(torch.from_numpy(case.inputs["x"])) * case.config["gain"]
    return {"y": y, "mean": y.mean().item(), "labels": ("a", "b")}


def expected_y(gain: float = 2.0) -> np.ndarray:
    x, weight, bias = draw("t/x", (5, 4)), fill("linear.weight", (3, 4)), fill("linear.bias", (3,))
    return (gain * (x.astype(np.float64) @ weight.T + bias)).astype(np.float32)


def write_case(folder: Path, name: str = "linear", **changes: Any) -> Path:
    """Write the golden case of :func:`linear` and return its path."""
    y = expected_y()
    spec = {
        "format": 2,
        "method": "toy",
        "case": name,
        "adapter": "linear",
        "tier": "network",
        "config": {"gain": 2.0},
        "mode": "eval",
        "weights": {"parts": {"net": WEIGHTS}},
        "inputs": {"x": {"expr": "draw('t/x', (5, 4))"}},
        "outputs": {
            "y": {"stored": "y", "select": "[::2]", "shape": [5, 3], "atol": 1e-5},
            "mean": {"value": float(y.mean()), "atol": 1e-5},
            "labels": {"value": ["a", "b"], "atol": None},
        },
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(spec))
    save_file({"y": np.ascontiguousarray(y[::2])}, path.with_suffix(".safetensors"))
    return path


def loaded(path: Path) -> Case:
    case = load_case(path)
    assert case is not None
    return case


def only_linear(method: str, adapter: str) -> Callable[[Case], Mapping[str, Any]] | None:
    return {("toy", "linear"): linear}.get((method, adapter))


def test_state_dicts_are_filled_adjusted_tied_and_complete(tmp_path: Path) -> None:
    parts = {
        "a": [
            ["body.weight", [3, 2, 2], "float32"],
            ["body.gamma", [1, 3, 1], "float32"],
            ["copy.weight", [3, 2, 2], "float32"],
            ["window", [8], "float32"],
            ["bn.num_batches_tracked", [], "int64"],
            ["half", [4], "float16"],
        ],
        "b": [["body.gamma", [1, 3, 1], "float32"]],
    }
    weights = {
        "parts": parts,
        "kept": {"a": ["window", "bn.num_batches_tracked"]},
        "tied": {"a": {"copy.weight": "body.weight"}},
        "adjust": [
            {"match": "*.gamma", "part": "a", "offset": 1.0, "gain": 0.5, "unscale": True},
            {"match": "*.gamma", "gain": 3.0},
            {"match": "body.*", "gain": 2.0},
        ],
    }
    states = loaded(write_case(tmp_path, weights=weights)).state_dicts
    a, b = states["a"], states["b"]
    assert list(a) == ["body.weight", "body.gamma", "copy.weight", "bn.num_batches_tracked", "half"]
    gamma = fill("body.gamma", (1, 3, 1))
    np.testing.assert_array_equal(a["body.weight"].numpy(), 2 * fill("body.weight", (3, 2, 2)))
    np.testing.assert_allclose(a["body.gamma"].numpy(), 1 + 0.5 * np.sqrt(3) * gamma, rtol=1e-6)
    np.testing.assert_array_equal(b["body.gamma"].numpy(), 3 * gamma)
    assert a["copy.weight"] is a["body.weight"]
    assert a["bn.num_batches_tracked"].dtype == torch.int64
    assert a["bn.num_batches_tracked"].shape == ()
    np.testing.assert_array_equal(a["half"].numpy(), fill("half", (4,)).astype(np.float16))


def test_inputs_build_on_earlier_ones_and_have_their_type(tmp_path: Path) -> None:
    inputs = {
        "_t": {"expr": "np.arange(3)", "dtype": "int64"},
        "x": {"expr": "_t / 3"},
        "y": {"stored": "y"},
        "text": {"value": ["a"]},
    }
    case = loaded(write_case(tmp_path, inputs=inputs))
    assert [case.inputs[n].dtype for n in ("_t", "x", "y")] == [np.int64, np.float32, np.float32]
    np.testing.assert_array_equal(case.inputs["x"], np.array([0, 1 / 3, 2 / 3], dtype=np.float32))
    assert case.inputs["text"] == ["a"]


def test_other_json_and_other_formats(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text('{"rows": []}')
    assert load_case(table) is None
    with pytest.raises(DataError, match="format 3"):
        load_case(write_case(tmp_path, format=3))


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (None, "missing"),
        (np.zeros((5, 4)), "has the shape (5, 4) instead of (5, 3)"),
        (np.full((5, 3), np.nan), "is not finite"),
    ],
)
def test_an_output_that_cannot_be_compared_is_infinitely_far(tmp_path: Path, y: Any, reason: str) -> None:
    case = loaded(write_case(tmp_path))
    error = compare(case, {} if y is None else {"y": y})[0]
    assert (error.name, error.error, error.passed, error.reason) == ("y", np.inf, False, reason)


def test_errors_are_largest_differences_or_relative_norms(tmp_path: Path) -> None:
    outputs = {
        "y": {"stored": "y", "select": "[::2]", "shape": [5, 3], "rel_l2": 0.1},
        "mean": {"value": 1.0, "atol": 0.5},
        "labels": {"value": [1, [2]], "atol": None},
    }
    case = loaded(write_case(tmp_path, outputs=outputs))
    y, mean, labels = compare(
        case, {"y": 1.25 * expected_y(), "mean": 0.75, "labels": (np.int64(1), torch.tensor([2]))}
    )
    assert y.error == pytest.approx(0.25)
    assert (y.passed, y.ratio) == (False, pytest.approx(2.5))
    assert (mean.error, mean.passed, mean.ratio) == (0.25, True, 0.5)
    assert (labels.error, labels.passed, labels.ratio) == (0.0, True, 0.0)
    assert compare(case, {"labels": [1, [3]]})[2].ratio == np.inf


def test_a_case_passes_and_reports_its_worst_output(tmp_path: Path) -> None:
    write_case(tmp_path / "toy")
    (tmp_path / "table.json").write_text("[1]")
    seen: list[str] = []
    (result,) = run_cases(tmp_path, adapters=only_linear, progress=lambda r: seen.append(r.case))
    assert result.passed
    assert result.output in {"y", "mean"}
    assert result.error is not None
    assert result.error <= 1e-5
    assert (result.reason, result.traceback, seen) == ("", "", ["linear"])


def test_failures_are_reported_one_by_one_and_never_end_the_run(tmp_path: Path) -> None:
    write_case(tmp_path, "a_passes")
    write_case(tmp_path, "b_off", config={"gain": 2.1})
    write_case(tmp_path, "c_unknown", adapter="transformer")
    write_case(tmp_path, "d_raises", config={})
    write_case(tmp_path, "e_hostile", inputs={"x": {"expr": "__import__('os').system('touch owned')"}})
    (tmp_path / "f_broken.json").write_text("{")
    write_case(tmp_path, "g_incomplete", outputs={"z": {"value": 1, "atol": 0.1}})
    write_case(tmp_path, "h_no_tensors").with_suffix(".safetensors").unlink()
    results = {r.case: r for r in run_cases(tmp_path, adapters=only_linear)}
    assert [r.passed for r in results.values()] == [True] + 7 * [False]
    assert results["b_off"].output == "y"
    assert results["b_off"].reason == "y is off (2 of 3 outputs fail)"
    assert "no installed plugin understands adapter 'transformer'" in results["c_unknown"].reason
    assert results["d_raises"].reason == "KeyError: 'gain'"
    assert "in linear" in results["d_raises"].traceback
    assert "__import__" in results["e_hostile"].reason
    assert "is not a JSON file" in results["f_broken.json"].reason
    assert results["g_incomplete"].reason == "z missing (1 of 1 outputs fail)"
    assert "no tensor 'y'" in results["h_no_tensors"].reason


def test_cases_can_be_chosen_by_method_and_tier(tmp_path: Path) -> None:
    write_case(tmp_path, "a")
    write_case(tmp_path, "b", tier="protocol")
    write_case(tmp_path, "c", method="other")

    def names(**chosen: str) -> list[str]:
        return [r.case for r in run_cases(tmp_path, adapters=only_linear, **chosen)]

    assert names(method="toy") == ["a", "b"]
    assert names(tier="protocol") == ["b"]
    assert names(method="other", tier="network") == ["c"]
    with pytest.raises(DataError, match="of method other of tier protocol"):
        names(method="other", tier="protocol")


@pytest.fixture
def run_parity(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``avsep parity`` with a registry that holds one adapter."""
    known = Registry()
    known.add([Entry("adapter", "toy/linear", linear, "", "toy")])
    monkeypatch.setattr("avsep_zoo.registry.registry", lambda: known)
    app = typer.Typer()
    app.command()(parity)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_command_exit_code_and_table(tmp_path: Path, run_parity: Callable[..., Any]) -> None:
    write_case(tmp_path)
    good = run_parity(tmp_path)
    assert good.exit_code == 0
    assert "toy linear" in good.stdout
    assert "1 of 1 cases pass" in good.stdout
    write_case(tmp_path, "unknown", adapter="transformer")
    write_case(tmp_path, "raises", config={})
    bad = run_parity(tmp_path, "--verbose")
    assert bad.exit_code == 1
    assert "1 of 3 cases pass" in bad.stdout
    assert "toy unknown: no installed plugin understands adapter 'transformer'" in bad.stdout
    assert "Traceback" in bad.stderr
    assert "Traceback" not in run_parity(tmp_path).stderr


def test_command_json(tmp_path: Path, run_parity: Callable[..., Any]) -> None:
    write_case(tmp_path)
    write_case(tmp_path, "missing", outputs={"z": {"value": 1, "atol": 0.1}})
    result = run_parity(tmp_path, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["passed"], document["failed"]) == (1, 1)
    assert [(c["case"], c["passed"]) for c in document["cases"]] == [("linear", True), ("missing", False)]
    assert document["cases"][1]["error"] is None


def test_command_without_cases(tmp_path: Path, run_parity: Callable[..., Any]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = run_parity(folder)
        assert result.exit_code == 2
        assert "no golden case" in result.stderr
