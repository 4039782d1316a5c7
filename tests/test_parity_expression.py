"""What golden files may say: named random numbers, expressions over NumPy, indices; and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from avsep_zoo.errors import DataError
from avsep_zoo.parity.expression import evaluate, select
from avsep_zoo.parity.recipe import draw, fill


def digest(array: np.ndarray) -> str:
    assert array.dtype == np.float32
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("conv1.weight", (4, 3, 2, 2), "7719392cafc76224"),
        ("bn1.weight", (5,), "7bce38531760ad50"),
        ("bn1.bias", (5,), "6a4a1b08c2ee7a82"),
        ("bn1.running_mean", (5,), "24652d3f149d08c9"),
        ("bn1.running_var", (5,), "50f5488d5358bcc5"),
        ("scale", (), "052f0db20a82a9b6"),
    ],
)
def test_fill_never_changes(key: str, shape: tuple[int, ...], expected: str) -> None:
    assert fill(key, shape).shape == shape
    assert digest(fill(key, shape)) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("normal", "984ee9da8bee65fa"), ("uniform", "9ccb0d0765a5e4f0"), ("abs", "073b12f2183645ab")],
)
def test_draw_never_changes(kind: str, expected: str) -> None:
    assert digest(draw("iquery/unet7/log_mag", (2, 7), kind)) == expected


def test_draw_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'cauchy'"):
        draw("x", (2,), "cauchy")


@pytest.mark.parametrize(
    "text",
    [
        "0.3 * x + np.float32(0.5) - y[0] / 2 ** 3",
        "np.stack([x, x])[:, ::2, None, :3] * (np.arange(3) < y)[..., :]",
        "np.stack([draw(f'a/{k}', (2, 1), 'abs') for k in range(3) if k != 1])",
        "np.where((np.arange(9) >= 2) & ~(np.arange(9) > 5), np.pi, -1.5)",
        "x.astype('float64').repeat(2, 0).reshape(-1, 2).T + len(y) % 2",
        "np.add.reduce(np.lib.stride_tricks.sliding_window_view(np.pad(x[0], [1, 0]), 2).T, axis=0)",
        "np.array([[1.0, 2], [3, y.shape[0]]]) @ x[:2, :2]",
        "np.sum(x * x, 1, keepdims=True) // 1",
    ],
)
def test_expressions_mean_what_python_means(text: str) -> None:
    names = {"x": draw("x", (3, 4)), "y": np.array([2, 0, 1])}
    got = evaluate(text, names)
    want = eval(text, {"np": np, "draw": draw, "range": range, "len": len, **names})
    np.testing.assert_array_equal(got, want)
    assert np.asarray(got).dtype == np.asarray(want).dtype


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__base__.__subclasses__()",
        "x.__class__",
        "x.__array_interface__",
        "np.__builtins__",
        "np.load('secret.npy')",
        "np.fromfile('secret')",
        "np.save('file', x)",
        "np.loadtxt('secret')",
        "np.memmap('secret')",
        "np.lib.npyio.DataSource('secret')",
        "np.lib.stride_tricks.as_strided(x, (9999,))",
        "np.lib.format.open_memmap('secret')",
        "np.ctypeslib.load_library('c', '.')",
        "np.f2py.compile('')",
        "np.testing.measure('1')",
        "np.random.seed(1)",
        "np.empty(9)",
        "np.frompyfunc(len, 1, 1)",
        "np.vectorize(len)(x)",
        "np.pad(x, 1, draw)",
        "np.add.at(x, 0, 1)",
        "x.tofile('file')",
        "x.dump('file')",
        "x.ctypes.data",
        "x.setflags(write=True)",
        "x.base",
        "open('secret')",
        "eval('1')",
        "getattr(x, 'tofile')",
        "(lambda: 1)()",
        "[c for c in (1, 2) for d in (1, 2)]",
        "{**{}}",
        "draw(*['a', (1,)])",
        "draw(**{'name': 'a', 'shape': (1,)})",
        "f'{x.size:999999999}'",
        "f'{x!r}'",
        "'{0.__class__}'.format(x)",
        "'a' * 10 ** 9",
        "[0] * 10 ** 9",
        "9 ** 9 ** 9",
        "[0 for _ in range(10 ** 12)]",
        "(y := 1)",
        "x if x else x",
        "draw",
        "np",
        "unknown",
        "1 +",
        "1 / 0",
        "x[99]",
        "-" * 5000 + "1",
        "1" * 20000,
    ],
)
def test_anything_else_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        evaluate(text, {"x": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[:, ::2]", "[..., 1]", "[::2, 1:, [0, -1]]", ".reshape(-1)[::5]", "[0]", "[None]"])
def test_select_takes_indices(text: str) -> None:
    x = np.arange(60).reshape(3, 4, 5)
    np.testing.assert_array_equal(select(x, text), eval(f"x{text}"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".T",
        ".sum()[None]",
        "[0] + 1",
        "[x]",
        "[np.arange(2)]",
        ".tofile('f')[0]",
        "[0](1)",
        "[9]",
        "[",
        " or 1",
    ],
)
def test_select_takes_nothing_else(text: str) -> None:
    with pytest.raises(DataError):
        select(np.arange(6).reshape(2, 3), text)
