"""AVE in both published forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avsep_zoo.data.reader import open_data
from avsep_zoo.data.readers.ave import AveReader
from avsep_zoo.errors import DataError

FLAT = 'AAA.wav,AAA.mp4,12,"Race car, auto racing"\nBBB.wav,BBB.mp4,12,Truck\nCCC.wav,CCC.mp4,12,Flute\n'


def flat(root: Path, extra: str = "", **lists: str) -> AveReader:
    for name, text in {"test": FLAT + extra, **lists}.items():
        (root / f"{name}.csv").write_text(text)
    reader = open_data(root)
    assert isinstance(reader, AveReader)
    return reader


def test_lists_in_the_columns_of_music(tmp_path: Path) -> None:
    """The class is the folder, frames are 25 per second, mixtures are looked up by the whole path."""
    (tmp_path / "testave.csv").write_text("/Truck/AbC.wav,/Truck/AbC.mp4,250\n/Race_car/D.wav,/Race_car/D.mp4,249\n")
    (tmp_path / "testsepave.csv").write_text("/Truck/AbC.wav, /Race_car/D.wav\n/Bus/AbC.wav, /Race_car/D.wav\n")
    reader = open_data(tmp_path)
    assert isinstance(reader, AveReader)
    truck, car = reader.clips("test")
    assert (truck.id, truck.label, truck.frame_count, truck.frame_rate) == ("Truck/AbC", "Truck", 250, 25.0)
    assert truck.frames == tmp_path / "frames/Truck/AbC.mp4"
    assert reader.mixtures("testsep") == [(truck, car)]
    assert [skipped.where for skipped in reader.skipped] == ["testsepave.csv row 2"]


def test_flat_lists_with_the_class_last(tmp_path: Path) -> None:
    """Files stand in ``audio`` itself, frames are 1 per second, a class may hold a comma."""
    car = flat(tmp_path).clips("test")[0]
    assert (car.id, car.label, car.frame_count, car.frame_rate) == ("AAA", "Race car, auto racing", 12, 1.0)
    assert (car.audio, car.frames) == (tmp_path / "audio/AAA.wav", tmp_path / "frames/AAA.mp4")
    assert car.detections == tmp_path / "detection_results/AAA.mp4.npy"
    assert open_data(tmp_path, frame_rate=4).clips("test")[0].frame_rate == 4


def test_mixtures_of_flat_lists_go_by_file_name(tmp_path: Path) -> None:
    """The folder in front is a class in another spelling."""
    reader = flat(tmp_path, testsep="/Race_car/AAA.wav, /Truck/BBB.wav\n/Truck/BBB.wav, /Bus/XXX.wav\n")
    assert [[clip.id for clip in m] for m in reader.mixtures("testsep")] == [["AAA", "BBB"]]
    assert "'/Bus/XXX.wav', which is not in the list 'test'" in reader.skipped[0].why


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("DDD.wav,DDD.mp4,12", "fewer than 4 columns"),
        ("DDD.wav,DDD.mp4,12,", "class is ''"),
        ("DDD.wav,DDD.mp4,twelve,Bus", "frame count"),
        ("../DDD.wav,DDD.mp4,12,Bus", "leads out"),
        ("DDD.wav,,12,Bus", "too short"),
        ("DDD.wav,DDD.mp4,12,B\x07us", "class is"),
        ("BBB.wav,BBB.mp4,12,Bus", "listed before"),
    ],
)
def test_a_bad_row_is_skipped(tmp_path: Path, row: str, why: str) -> None:
    """A recording that is listed with two classes counts with the first."""
    reader = flat(tmp_path, row + "\n")
    assert [clip.id for clip in reader.clips("test")] == ["AAA", "BBB", "CCC"]
    assert (reader.skipped[0].where, why in reader.skipped[0].why) == ("test.csv row 4", True)


def test_a_flat_list_is_written_again(tmp_path: Path) -> None:
    """Four columns, quotes where the class holds a comma, and the mixtures as they stood."""
    (tmp_path / "raw").mkdir()
    reader = flat(tmp_path / "raw", testsep="/Race_car/AAA.wav, /Truck/BBB.wav\n/Truck/BBB.wav, /Flute/CCC.wav\n")
    car, truck, _ = reader.clips("test")
    target = tmp_path / "copy"
    reader.write_index(target, "test", [replace(car, frame_count=10), truck])
    assert (target / "test.csv").read_text() == (
        'AAA.wav,AAA.mp4,10,"Race car, auto racing"\nBBB.wav,BBB.mp4,12,Truck\n'
    )
    assert (target / "testsep.csv").read_text() == "/Race_car/AAA.wav, /Truck/BBB.wav\n"
    assert AveReader(target).clips("test")[0] == replace(reader.prepared(car, target), frame_count=10)


def test_a_list_without_usable_row(tmp_path: Path) -> None:
    """The error says what is wrong with the first."""
    reader = flat(tmp_path, train="a,b\n")
    with pytest.raises(DataError, match=r"train\.csv row 1: The row has fewer than 4 columns"):
        reader.clips("train")
