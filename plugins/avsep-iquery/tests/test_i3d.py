"""The motion extractor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avsep_iquery.i3d import I3D, convert_i3d
from avsep_zoo.errors import CueError

CASES = Path(__file__).parents[3] / "tests" / "parity" / "iquery"


def video(frames: int = 16, height: int = 33, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("frames", "height", "width"), [(2, 32, 32), (9, 33, 50), (20, 64, 48)])
def test_steps_and_size(frames: int, height: int, width: int) -> None:
    """S = ceil(floor(n/2)/4), h = ceil(floor(H/2)/16)."""
    features = I3D(width=4).extract(video(frames, height, width))
    assert features.shape == (64, -(-(frames // 2) // 4), -(-(height // 2) // 16), -(-(width // 2) // 16))
    assert features.dtype == torch.float32


def test_first_convolution_pads_two_in_front_and_three_behind() -> None:
    network = I3D(width=4)
    clip = torch.zeros(1, 3, 8, 8, 8)
    clip[0, :, 0, 0, 0] = 1.0
    out = network.conv1.conv(torch.nn.functional.pad(clip, network.conv1.padding))
    assert torch.equal(out[0, :, 0, 0, 0], network.conv1.conv.weight[:, :, 2, 2, 2].sum(dim=1))
    assert out.shape[2:] == (4, 4, 4)


def test_statistics_of_the_clip_leave_the_network_alone() -> None:
    """The paper protocol gives what train mode gives, without its side effect."""
    network = I3D(width=4).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    paper, default = network.extract(video(), protocol="paper"), network.extract(video())
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    pixels = torch.from_numpy(video()).movedim(-1, 0)[None].float() / 255
    with torch.no_grad():
        torch.testing.assert_close(default, network(pixels)[0])
        torch.testing.assert_close(paper, network.train()(pixels)[0])
    assert not torch.allclose(paper, default)
    assert int(network.conv1.norm.num_batches_tracked) == 1


def test_default_extraction_ignores_the_mode() -> None:
    network = I3D(width=4)
    assert torch.equal(network.train().extract(video()), network.eval().extract(video()))


def test_paper_protocol_reads_160_frames() -> None:
    network, frames = I3D(width=4), video(164, 16, 16)
    assert network.extract(frames).shape[1] == 21
    paper = network.extract(frames, protocol="paper")
    assert paper.shape[1] == 20
    assert torch.equal(paper, network.extract(frames[:160], protocol="paper"))


@pytest.mark.parametrize(
    "frames",
    [video().astype(np.float32), video()[0], video()[..., :2], video(1), video(4, 1, 8)],
    ids=["float", "one picture", "two channels", "one frame", "one row"],
)
def test_frames_that_cannot_be_used(frames: np.ndarray) -> None:
    with pytest.raises(CueError, match=r"give uint8 RGB \(n, H, W, 3\)"):
        I3D(width=4).extract(frames)


def test_width() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        I3D(width=6)


def official() -> dict[str, torch.Tensor]:
    entries = json.loads((CASES / "motion_i3d.json").read_text())["weights"]["parts"]["i3d"]
    return {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, s, d in entries}


def test_official_layout() -> None:
    with torch.device("meta"):
        expected = I3D().state_dict()
    state = convert_i3d(official())
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in expected.items()}


def test_official_file_with_other_networks_in_it() -> None:
    """Of the pretraining checkpoint only the extractor without its head is taken."""
    entries = {f"module.encoder_q.{key}": value for key, value in official().items()}
    entries["module.encoder_q.id_head.2.weight"] = torch.zeros(1)
    entries["module.encoder_k.conv3d_1a_7x7.conv3d.weight"] = torch.zeros(1)
    entries["module.queue"] = torch.zeros(1)
    assert convert_i3d(entries).keys() == convert_i3d(official()).keys()


@pytest.mark.parametrize(
    "key",
    ["fc.weight", "mixed_3b.branch_4.conv3d.weight", "mixed_9a.branch_0.conv3d.weight", "mixed_3b.conv3d.weight"],
)
def test_an_unknown_entry_is_refused(key: str) -> None:
    with pytest.raises(KeyError, match=key):
        convert_i3d({key: torch.zeros(1)})
