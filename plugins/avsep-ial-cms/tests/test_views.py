"""What the network sees of an object, against a picture whose pixels say where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from avsep_ial_cms.views import object_view, seen_region
from avsep_zoo.errors import CueError
from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD


def places(width: int = 200, height: int = 150) -> Tensor:
    """A picture (3, H, W) whose red is the x of a pixel's middle and whose green is its y, in hundreds of pixels."""
    picture = torch.zeros(3, height, width)
    picture[0] = (torch.arange(width) + 0.5) / 100
    picture[1] = ((torch.arange(height) + 0.5) / 100)[:, None]
    return picture


def colours(view: Tensor) -> Tensor:
    """Undo the normalisation."""
    return view * torch.from_numpy(IMAGENET_STD)[:, None, None] + torch.from_numpy(IMAGENET_MEAN)[:, None, None]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (None, 32),
        ((20, 30, 140, 130), 32),
        ((20.9, 30.2, 140.9, 130.7), 16),
        ((10, 10, 190, 40), 112),
        ((50, 50, 58, 58), 32),
        ((-80, -1e9, 120, 100), 32),
        ((100, 20, 1e12, 500), 48),
        ((-1e300, -1e300, 1e300, 1e300), 32),
    ],
)
def test_the_region_is_what_the_view_shows(box: tuple[float, ...] | None, size: int) -> None:
    """Colours of a linear picture stay linear: the first and the last pixel say where the view begins and ends."""
    region = seen_region(box, size, width=200, height=150)
    shown = colours(object_view(places(), box, size)) * 100
    assert shown.shape == (3, size, size)
    step = np.array([region[2] - region[0], region[3] - region[1]]) / size  # from one pixel of the view to the next
    begin, end = (shown[:2, place, place].numpy() for place in (0, -1))
    np.testing.assert_allclose(begin - step / 2, region[:2], atol=0.02)
    np.testing.assert_allclose(end + step / 2, region[2:], atol=0.02)


@pytest.mark.parametrize("box", [(20.9, 30.2, 140.9, 130.7), (-80, -90, 120, 100), (7, 7, 8, 8)])
def test_the_region_lies_inside_the_box_and_the_picture(box: tuple[float, ...]) -> None:
    """A sixteenth is cut off on each side of what the box has of the picture."""
    x1, y1, x2, y2 = seen_region(box, 224, width=200, height=150)
    assert max(0, box[0] - 1) < x1 < x2 < min(200, box[2]) and max(0, box[1] - 1) < y1 < y2 < min(150, box[3])
    left, right = max(0, int(box[0])), min(200, int(box[2]))
    assert (x1 - left, right - x2) == pytest.approx(((right - left) / 16,) * 2)


def test_one_pixel_fills_the_view() -> None:
    picture = torch.rand(3, 9, 9)
    shown = colours(object_view(picture, (4, 6, 5, 7), 16))
    torch.testing.assert_close(shown, picture[:, 6, 4, None, None].expand(-1, 16, 16))


def test_bytes_are_shares_of_255() -> None:
    """uint8 (H, W, 3), as frames are read, looks as the same picture from 0 to 1."""
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    wanted = object_view(torch.from_numpy(frame).permute(2, 0, 1) / 255, (5, 5, 50, 35), 32)
    torch.testing.assert_close(object_view(frame, (5, 5, 50, 35), 32), wanted)
    torch.testing.assert_close(object_view(frame[:, ::-1], None, 32), object_view(frame[:, ::-1].copy(), None, 32))


def test_antialiasing_filters_what_is_made_smaller() -> None:
    """Stripes of one pixel become grey; without it some of them are left. What is made larger is the same."""
    stripes = torch.zeros(3, 300, 300)
    stripes[:, :, ::2] = 1
    smooth, rough = (colours(object_view(stripes, None, 32, antialias=on)) for on in (True, False))
    assert smooth.std() < 0.1 * rough.std()
    box = (0, 0, 12, 12)
    torch.testing.assert_close(object_view(stripes, box, 32, antialias=True), object_view(stripes, box, 32))


def test_views_of_training_are_parts_of_the_square() -> None:
    """Any part of it, half of them mirrored, and the same ones for the same generator."""
    rng = np.random.default_rng(0)
    views = [colours(object_view(places(), (20, 30, 120, 130), 32, rng=rng)) * 100 for _ in range(60)]
    again = object_view(places(), (20, 30, 120, 130), 32, rng=np.random.default_rng(0))
    torch.testing.assert_close(colours(again) * 100, views[0])
    mirrored = [bool(view[0, 0, 0] > view[0, 0, -1]) for view in views]
    assert 15 < sum(mirrored) < 45
    step = 100 / 37
    lefts = {round((min(view[0, 0, 0].item(), view[0, 0, -1].item()) - 20) / step - 0.5, 1) for view in views}
    tops = {round((view[1, 0, 0].item() - 30) / step - 0.5, 1) for view in views}
    assert lefts == tops == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


@pytest.mark.parametrize("box", [(60, 0, 70, 40), (-9, 0, 0, 40), (0, 99, 60, 140), (70.0, 0, 9e9, 40), (3, 3, 3.2, 9)])
def test_a_box_without_a_pixel(box: tuple[float, ...]) -> None:
    """Outside of the picture, on its edge, or between two pixels."""
    message = r"The box .* has no pixel of a picture of 60 x 40; give x1, y1, x2, y2 in its pixels\."
    with pytest.raises(CueError, match=message):
        object_view(np.zeros((40, 60, 3), np.uint8), box, 32)
    with pytest.raises(CueError, match=message):
        seen_region(box, 32, width=60, height=40)
