"""Motion features of a clip by I3D (Carreira and Zisserman, CVPR 2017), as in iQuery's motion files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.errors import CueError

__all__ = ["I3D", "convert_i3d"]

PUBLISHED_FRAMES = 160
Statistics = Literal["module", "running", "clip"]

# Channels of the branches: pointwise; reduce, 3x3x3; reduce, 3x3x3; pool and project.
_MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
_POOL_BEFORE = {"3b": ((1, 3, 3), (1, 2, 2)), "4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}
_STEMS = {"conv3d_1a_7x7": "conv1", "conv3d_2b_1x1": "conv2", "conv3d_2c_3x3": "conv3"}
_PREFIX = "module.encoder_q."


class I3D(nn.Module):
    """Inflated Inception: (B, 3, n, H, W) in [0, 1] -> (B, 16 width, S, h, w).

    S is n / 8 and h, w are H / 32, W / 32; the first halving rounds down, the others up. Convolutions and
    pools pad "same" with zeros.

    Args:
        width: channels of the first convolution; 64 is the published network with 1024 features. Must be a
            multiple of 4.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"The I3D width is {width}; give a positive multiple of 4.")
        self.conv1 = _Unit(3, width, kernel=7, stride=2)
        self.conv2 = _Unit(width, width, kernel=1)
        self.conv3 = _Unit(width, 3 * width, kernel=3)
        self.mixed = nn.ModuleDict()
        incoming = 3 * width
        for name, published in _MIXED.items():
            mixed = _Mixed(incoming, [c * width // 64 for c in published])
            self.mixed[name] = mixed
            incoming = mixed.channels
        self.channels = incoming

    def forward(self, video: Tensor, *, statistics: Statistics = "module") -> Tensor:
        """Compute the features of ``video``.

        Args:
            video: (B, 3, n, H, W) in [0, 1], not normalised further.
            statistics: what the norms use: ``clip`` those of this batch, ``running`` the stored ones, both
                without changing them; ``module`` follows the mode of the module.
        """
        x = self.conv1(video, statistics)
        x = _max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.conv3(self.conv2(x, statistics), statistics)
        for name, mixed in self.mixed.items():
            if name in _POOL_BEFORE:
                x = _max_pool(x, *_POOL_BEFORE[name])
            x = mixed(x, statistics)
        return x

    @torch.no_grad()
    def extract(self, frames: np.ndarray | Tensor, *, protocol: Literal["default", "paper"] = "default") -> Tensor:
        """Return the motion features (16 width, S, h, w) of one clip, float32 on the module's device.

        Args:
            frames: uint8 RGB (n, H, W, 3) at native size.
            protocol: ``paper`` takes the first 160 frames and normalises with the statistics of the clip,
                which is how the published motion files were made; ``default`` takes all frames and the stored
                statistics. Either way the module stays as it is.

        Raises:
            CueError: the frames are not uint8 (n, H, W, 3), or fewer or smaller than 2.
        """
        clip = torch.as_tensor(frames)
        if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or min(clip.shape) < 2:
            raise CueError(
                f"The frames are {clip.dtype} of shape {tuple(clip.shape)}; give uint8 RGB (n, H, W, 3), "
                "2 or more of each."
            )
        paper = protocol == "paper"
        weight = self.conv1.conv.weight
        clip = clip[: PUBLISHED_FRAMES if paper else None].to(weight.device)
        video = clip.movedim(-1, 0)[None].to(weight.dtype) / 255  # (1, 3, n, H, W)
        return self(video, statistics="clip" if paper else "running")[0].float()


class _Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, incoming: int, outgoing: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.padding = _same((kernel,) * 3, (stride,) * 3)
        self.conv = nn.Conv3d(incoming, outgoing, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm3d(outgoing)

    def forward(self, x: Tensor, statistics: Statistics) -> Tensor:
        x, norm = self.conv(F.pad(x, self.padding)), self.norm
        if statistics == "module":
            return F.relu(norm(x))
        stored = (None, None) if statistics == "clip" else (norm.running_mean, norm.running_var)
        x = F.batch_norm(x, *stored, norm.weight, norm.bias, training=statistics == "clip", eps=norm.eps)
        return F.relu(x)


class _Mixed(nn.Module):
    """Four branches side by side: pointwise; two with a 3x3x3 convolution; pool and project."""

    def __init__(self, incoming: int, channels: Sequence[int]) -> None:
        super().__init__()
        pointwise, reduce_1, conv_1, reduce_2, conv_2, project = channels
        self.channels = pointwise + conv_1 + conv_2 + project
        self.pointwise = _Unit(incoming, pointwise, kernel=1)
        self.reduce = nn.ModuleList([_Unit(incoming, reduce_1, kernel=1), _Unit(incoming, reduce_2, kernel=1)])
        self.conv = nn.ModuleList([_Unit(reduce_1, conv_1, kernel=3), _Unit(reduce_2, conv_2, kernel=3)])
        self.project = _Unit(incoming, project, kernel=1)

    def forward(self, x: Tensor, statistics: Statistics) -> Tensor:
        branches = [self.pointwise(x, statistics)]
        for reduce, conv in zip(self.reduce, self.conv, strict=True):
            branches.append(conv(reduce(x, statistics), statistics))
        branches.append(self.project(_max_pool(x, (3, 3, 3), (1, 1, 1)), statistics))
        return torch.cat(branches, dim=1)


def convert_i3d(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the official motion extractor's state dict to the entries of :class:`I3D`.

    In the FAME project's file the extractor's entries start with ``module.encoder_q.``; the others, and the
    unused head ``id_head``, are dropped.

    Raises:
        KeyError: an entry of the extractor belongs to no known layout.
    """
    if any(key.startswith(_PREFIX) for key in entries):
        entries = {k.removeprefix(_PREFIX): v for k, v in entries.items() if k.startswith(_PREFIX)}
    return {_rename(key): value for key, value in entries.items() if not key.startswith("id_head.")}


def _rename(key: str) -> str:
    match = re.fullmatch(
        r"(?P<stage>\w+)\.(?:branch_(?P<branch>\d(?:\.\d)?)\.)?(?P<module>conv3d|batch3d)\.(?P<entry>\w+)",
        key,
    )
    if match is None:
        raise KeyError(key)
    entry = f"{'conv' if match['module'] == 'conv3d' else 'norm'}.{match['entry']}"
    stage, branch = match["stage"], match["branch"]
    if branch is None and stage in _STEMS:
        return f"{_STEMS[stage]}.{entry}"
    unit = {
        "0": "pointwise", "1.0": "reduce.0", "1.1": "conv.0", "2.0": "reduce.1", "2.1": "conv.1",
        "3.1": "project",
    }.get(branch or "")  # fmt: skip
    name = stage.removeprefix("mixed_")
    if unit is None or name not in _MIXED:
        raise KeyError(key)
    return f"mixed.{name}.{unit}.{entry}"


def _same(kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Zero padding of the three axes in the order of :func:`torch.nn.functional.pad` (last axis first)."""
    padding: list[int] = []
    for size, step in zip(reversed(kernel), reversed(stride), strict=True):
        whole = max(size - step, 0)
        padding += [whole // 2, whole - whole // 2]
    return padding


def _max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(F.pad(x, _same(kernel, stride)), kernel, stride, ceil_mode=True)
