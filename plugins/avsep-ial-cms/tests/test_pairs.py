"""Pairs: the memory bank and its order of writing, partners within a mixture, and several processes."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from avsep_ial_cms.pairs import MemoryBank, dependent_pairs, draw_partners
from avsep_zoo.errors import DataError


def bank_of(rows: Tensor, pointer: int = 0) -> MemoryBank:
    bank = MemoryBank(len(rows))
    bank.restore({"rows": rows, "pointer": pointer})
    return bank


@pytest.mark.parametrize(("size", "pointer", "count"), [(5, 0, 3), (5, 4, 5), (3, 2, 10), (1, 0, 4)])
def test_sounds_are_written_one_after_the_other(size: int, pointer: int, count: int) -> None:
    """A later sound may draw an earlier one of the same call, as in a loop that reads a row and then writes one."""
    rows, sounds = torch.randn(size, 2, 3), torch.randn(count, 2, 3)
    drawn = torch.randint(size, (count,)).tolist()
    wanted, place, expected = rows.clone(), pointer, []
    for sound, row in zip(sounds, drawn, strict=True):
        expected.append(torch.stack((sound, wanted[row])))
        wanted[place] = sound
        place = (place + 1) % size
    bank = bank_of(rows, pointer)
    assert torch.equal(bank.pairs(sounds, drawn), torch.stack(expected))
    assert bank.rows is not None and torch.equal(bank.rows, wanted) and bank.pointer == place


def test_first_partners_are_noise() -> None:
    """The same one in every bank, whatever was drawn before; negative values, too."""
    torch.manual_seed(1)
    one = MemoryBank(4)
    pairs = one.pairs(torch.zeros(1, 8, 8), [2])
    other = MemoryBank(4)
    torch.randn(3)
    assert torch.equal(pairs, other.pairs(torch.zeros(1, 8, 8), [2]))
    assert pairs[0, 1].min() < 0 < pairs[0, 1].std()


def test_rows_are_drawn_from_the_whole_bank() -> None:
    """From torch's generator: a seed repeats them."""
    rows = torch.arange(6.0)[:, None, None].repeat(1, 2, 2)

    def partners() -> list[float]:
        torch.manual_seed(3)
        return bank_of(rows).pairs(torch.full((200, 2, 2), 9.0)).narrow(1, 1, 1)[:, 0, 0, 0].tolist()

    first = partners()
    assert first == partners()
    drawn = [int(bank_of(rows).pairs(torch.zeros(1, 2, 2))[0, 1, 0, 0]) for _ in range(100)]
    assert set(drawn) == set(range(6))


def test_gradient_flows_into_the_sounds_alone() -> None:
    sounds = torch.randn(3, 2, 2, requires_grad=True)
    bank = MemoryBank(2)
    bank.pairs(sounds, [0, 0, 0])[:, 1].sum().backward()
    assert sounds.grad is not None and not sounds.grad.any()
    bank.pairs(sounds, [0, 0, 0])[:, 0].sum().backward()
    assert sounds.grad.eq(1).all()
    assert bank.rows is not None and not bank.rows.requires_grad


def test_bank_is_kept_in_float32() -> None:
    bank = MemoryBank(2)
    pairs = bank.pairs(torch.ones(1, 2, 2, dtype=torch.bfloat16), [0])
    assert pairs.dtype == torch.bfloat16
    assert bank.rows is not None and bank.rows.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restored_bank_goes_on(dtype: torch.dtype, tmp_path: Path) -> None:
    """From a file, into memory of its own, whatever type it had; also before its first use."""
    bank = MemoryBank(3)
    bank.pairs(torch.randn(4, 2, 2), [0, 1, 2, 0])
    state = bank.state()
    assert isinstance(state["rows"], Tensor)
    torch.save(state | {"rows": state["rows"].to(dtype)}, tmp_path / "bank.pt")
    restored = MemoryBank(3)
    restored.restore(torch.load(tmp_path / "bank.pt", weights_only=True))
    sounds = torch.randn(5, 2, 2)
    assert torch.equal(restored.pairs(sounds, [0] * 5), bank.pairs(sounds, [0] * 5))
    assert restored.pointer == bank.pointer == 0
    empty = MemoryBank(3)
    empty.restore(MemoryBank(3).state())
    assert empty.rows is None and empty.pointer == 0


def test_restored_rows_are_a_copy() -> None:
    rows = torch.zeros(2, 2, 2)
    bank_of(rows).pairs(torch.ones(1, 2, 2), [0])
    assert not rows.any()


def test_bank_of_another_size() -> None:
    with pytest.raises(DataError, match="holds 4 spectrograms instead of 3; set bank to that"):
        MemoryBank(3).restore({"rows": torch.zeros(4, 2, 2), "pointer": 0})


def test_spectrograms_of_another_front_end() -> None:
    """The bank stays as it was."""
    bank = bank_of(torch.zeros(2, 8, 4))
    with pytest.raises(DataError, match="of 8 x 4 points and the model gives those of 4 x 8 points; take"):
        bank.pairs(torch.ones(1, 4, 8), [0])
    assert bank.rows is not None and not bank.rows.any() and bank.pointer == 0


def test_partners_are_another_sound_of_the_mixture() -> None:
    """In the order of sounds; a mixture of one sound, or of none, gives no pair."""
    sounds = torch.arange(7.0)[:, None, None]
    pairs = dependent_pairs(sounds, [3, 1, 0, 2, 1], [0, 0, 1, 0, 0, 0, 0])
    assert pairs[..., 0, 0].tolist() == [[0, 1], [1, 0], [2, 1], [4, 5], [5, 4]]
    assert dependent_pairs(sounds, [1] * 7, [0] * 7).shape == (0, 2, 1, 1)


def test_gradient_flows_into_both_of_a_mixture() -> None:
    sounds = torch.randn(2, 2, 2, requires_grad=True)
    dependent_pairs(sounds, [2], [0, 0]).sum().backward()
    assert sounds.grad is not None and sounds.grad.eq(2).all()


def test_every_other_sound_is_drawn() -> None:
    """Uniformly, from 0 to n - 2; 0 for a sound that is alone."""
    counts = [4, 1, 2] * 300
    drawn = draw_partners(counts)
    assert len(drawn) == sum(counts)
    by_count: dict[int, list[int]] = {1: [], 2: [], 4: []}
    for start, count in zip([0, *accumulate(counts)], counts, strict=False):
        by_count[count] += drawn[start : start + count]
    assert set(by_count[1]) == set(by_count[2]) == {0}
    assert all(by_count[4].count(number) == pytest.approx(400, abs=80) for number in range(3))


def _one_process(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    bank = MemoryBank(5)
    for number in range(2):
        sounds = torch.full((2, 1, 1), 10.0 * number + rank) + torch.arange(2)[:, None, None] / 10
        pairs = bank.pairs(sounds, [0, bank.pointer])
    torch.save({"bank": bank.state(), "pairs": pairs}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_processes_keep_the_same_bank(tmp_path: Path) -> None:
    """With the sounds of all of them, one process after the other; partners are drawn for one's own."""
    multiprocessing.spawn(_one_process, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["bank"]["rows"], second["bank"]["rows"])
    assert first["bank"]["rows"].flatten().tolist() == pytest.approx([10.1, 11, 11.1, 1.1, 10])
    assert first["bank"]["pointer"] == second["bank"]["pointer"] == 3
    assert second["pairs"].flatten(1).tolist() == [pytest.approx([11, 0]), pytest.approx([11.1, 11])]
