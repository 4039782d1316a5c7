"""What a report shows of where a source was found: pictures with a map over them, and the numbers of its colours."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avsep_zoo.report_pictures import boxed, heat_bar, localised
from avsep_zoo.separation import Localisation, Separation, Stem

RATE, BLUE = 8000, "#0072b2"
GREY = np.full((100, 200, 3), 90, np.uint8)


def located(*maps: Any, region: tuple[float, ...] = (20, 10, 120, 90), picture: np.ndarray = GREY) -> Localisation:
    """Maps in one region, with the same picture for each."""
    stack = np.array(maps, np.float16)
    regions = np.tile(np.array(region, float), (len(maps), 1))
    return Localisation(np.arange(len(maps)) + 0.5, regions, stack, dict.fromkeys(range(len(maps)), picture))


def decoded(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)


def drawn(found: Localisation, number: int = 0) -> np.ndarray:
    """(H, W, 3) as the page shows it: a picture of 200 x 100 is 1.6 times as large."""
    return decoded(localised(found, "violin", BLUE)["pictures"][number]["source"])


def page_of(*found: Localisation | None, **more: Any) -> str:
    from avsep_zoo.report import render

    silence = np.zeros((1, 800), np.float32)
    stems = [Stem(name, silence) for name in ("violin", "flute")]
    return render(
        Separation(stems=stems, mixture=silence, rate=RATE, method="m", localisations=found or None, **more), "t"
    )


def test_a_map_glows_where_it_is_high() -> None:
    """High on the left, low on the right: there, and outside the region, the picture is as it was."""
    picture = drawn(located([[0.8, 0.2]]))
    hot, cold, outside = picture[80, 40:100], picture[80, 160:186], picture[80, 200:]
    assert hot.mean(axis=0)[0] > 200 and hot.mean(axis=0)[0] > hot.mean(axis=0)[2] + 30  # yellow
    assert np.abs(cold - 90).mean() < 25 and np.abs(outside[5:] - 90).max() < 8


def test_the_map_lies_in_its_region_as_it_is() -> None:
    """Row 0 at the top and column 0 on the left, each cell a quarter of the region."""
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        values = np.zeros((2, 2))
        values[row, column] = 1
        luminance = drawn(located(values)).mean(axis=2)
        quarters = [luminance[24:72, 40:104], luminance[24:72, 120:184], luminance[88:136, 40:104]]
        quarters.append(luminance[88:136, 120:184])
        assert int(np.argmax([q.mean() for q in quarters])) == 2 * row + column


def test_between_cells_the_map_is_bilinear() -> None:
    """The brightness rises from left to right without a step."""
    line = drawn(located([[0.0, 1.0]], picture=np.zeros((100, 200, 3), np.uint8)))[80, 40:184].mean(axis=1)
    assert np.diff(line).max() < 15 and (np.diff(line[::12]) > -8).all() and line[-20:].mean() > 150


def test_contrast_is_that_of_all_maps_of_a_stem() -> None:
    """A map of low values beside one of high values stays clear, and the ends are the extremes of both."""
    shown = localised(located([[0.3, 0.3]], [[0.3, 0.7]]), "violin", BLUE)
    assert (shown["low"], shown["high"]) == (pytest.approx(0.3, abs=1e-3), pytest.approx(0.7, abs=1e-3))
    clear, hot = (decoded(one["source"])[80, 130:180] for one in shown["pictures"])
    assert np.abs(clear - 90).max() < 12 and hot.mean() > 130


def test_the_region_is_outlined_in_the_colour_of_the_stem() -> None:
    picture = drawn(located([[0.0, 0.0], [0.0, 1.0]]))
    assert np.abs(picture[18, 60:160] - np.array([0, 0x72, 0xB2])).mean() < 20


@pytest.mark.parametrize(
    "region",
    [(-50, -50, 60, 40), (150, 60, 1e9, 1e9), (300, 300, 400, 400), (50, 50, 50, 50), (60, 60, 20, 20)],
)
def test_regions_outside_the_picture(region: tuple[float, ...]) -> None:
    """What is inside is drawn; what is not takes no memory."""
    picture = drawn(located([[1.0, 0.0], [0.5, 0.2]], region=region))
    assert picture.shape == (160, 320, 3)
    far = picture[:40, 200:] if region[0] < 100 else picture[:60, :100]
    assert np.abs(far - 90).max() < 12


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (1080, 1920)])
def test_pictures_of_any_size(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    shown = drawn(located([[0.4]], [[0.6]], region=(0, 0, width, height), picture=picture))
    assert shown.shape[0] <= 960 and shown.shape[1] <= 640
    assert decoded(boxed(picture, None, BLUE)).shape == shown.shape


def test_what_is_seen_is_said_in_words() -> None:
    values = np.zeros((4, 4))
    values[3, 0] = 1
    shown = localised(located(np.zeros((4, 4)), values), "violin", BLUE)["pictures"]
    assert shown[0]["alt"] == (
        "Picture of the sound at 0.5 s. The map of violin is the same everywhere in the outlined part."
    )
    assert shown[1]["alt"] == (
        "Picture of the sound at 1.5 s. In the outlined part the map of violin is highest 12 % of the way from left to "
        "right and 88 % from top to bottom."
    )


def test_the_page_shows_pictures_times_and_numbers() -> None:
    """In place of the plain picture of the stem; a stem without maps keeps that."""
    frames = [GREY, GREY]
    html = page_of(located([[0.25, 0.5]], [[0.5, 0.75]]), None, frames=frames, boxes=[(1, 1, 9, 9), None])
    violin, flute = re.findall(r'<section aria-labelledby="stem-\d">.*?</section>', html, re.DOTALL)
    assert violin.count("data:image/jpeg") == 2 and "Frame of the video" not in violin
    assert len(re.findall(r'<img src="data:image/jpeg[^"]*" alt="Picture of the sound at [01]\.5 s\.', violin)) == 2
    assert ">0.5 s<" in violin and ">1.5 s<" in violin
    assert "0.25, the lowest" in violin and "0.75, the highest" in violin
    assert heat_bar() in violin
    assert flute.count("data:image/jpeg") == 1 and "Frame of the video" in flute and "the lowest" not in flute


def test_maps_that_are_the_same_everywhere_have_no_colours() -> None:
    html = page_of(located([[0.5]]), None)
    assert "0.50 everywhere" in html and heat_bar() not in html


def test_a_place_without_pictures_leaves_the_plain_one() -> None:
    bare = Localisation(np.zeros(1), np.zeros((1, 4)), np.zeros((1, 2, 2), np.float16))
    html = page_of(bare, None, frames=[GREY, None])
    assert "Frame of the video" in html and "the lowest" not in html


def test_names_in_the_words_are_escaped(tmp_path: Path) -> None:
    silence = np.zeros((1, 800), np.float32)
    result = Separation(
        stems=[Stem('"><script>x</script>', silence)],
        mixture=silence,
        rate=RATE,
        method="m",
        localisations=[located([[0.1, 0.2]])],
    )
    html = result.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.count("<script>") == 1 and "<script>x" not in html
