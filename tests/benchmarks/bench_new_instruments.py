"""Teach iquery.mini three instruments it never heard, in two ways: bench_new_instruments.py FOLDER.

Kalimba, sitar and harp are played by the soundfont, 40 recordings each for training, with as many of five instruments
that the model knows. The README's command trains on them for 200 steps: with ``--freeze all`` at a learning rate for
single queries, and with ``--freeze attention`` at that of the preset. Printed is the SDR improvement by label on
mixtures of recordings that were not trained on: of the new instruments, the five others, and four instruments that the
model knows and was not reminded of. About 15 minutes on two cores; FOLDER keeps recordings, runs and results.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NEW = {
    "kalimba": (108, 55, 90, False),
    "sitar": (104, 48, 80, True),
    "harp": (46, 40, 96, True),
}
REMINDED = ("cello", "flute", "piano", "trumpet", "violin")
OTHERS = ("banjo", "oboe", "tuba", "xylophone")
COUNTS = {"train": 40, "val": 8, "test": 12}
WAYS = {
    "all": ("--freeze", "all", "--learning-rate", "0.3"),
    "attention": ("--freeze", "attention"),
}


def record(folder: Path) -> None:
    """Play every recording: ten seconds at 22.05 kHz, in ``taught/<split>/<class>`` and ``others/test/<class>``."""
    import soundfile
    import soxr

    from avsep_zoo.synth.clip import SECONDS, generator, play_soundfont
    from avsep_zoo.synth.instruments import INSTRUMENTS, Instrument, Voice
    from avsep_zoo.synth.soundfont import FLUID_R3, RATE, find_soundfont

    for name, (program, low, high, chords) in NEW.items():
        INSTRUMENTS[name] = Instrument(name, (Voice(program, low, high),), "plucked", chords=chords)
    for place, names in (("taught", (*NEW, *REMINDED)), ("others", OTHERS)):
        for name in names:
            splits = [split for split, count in COUNTS.items() for _ in range(count)]
            for take, split in enumerate(splits):
                file = folder / place / split / name / f"{take:02d}.wav"
                if file.exists() or (place == "others" and split != "test"):
                    continue
                draws = generator("new instruments", name, take)
                sound, _ = play_soundfont(name, find_soundfont(FLUID_R3), SECONDS, draws, draws)
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, soxr.resample(sound, RATE, 22050), 22050)


def avsep(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "avsep_zoo", *map(str, words)], check=True, stdout=sys.stderr)


def improvement(folder: Path, model: str, names: tuple[str, ...]) -> float:
    """Mean over the sources of some classes, in dB."""
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = [row for entry in document["models"] if entry["name"] == model for row in entry["lists"][0]["by_class"]]
    chosen = [(row["sdr_improvement"], row["sources"]) for row in rows if row["label"] in names]
    return float(sum(gain * count for gain, count in chosen) / sum(count for _, count in chosen))


def main() -> None:
    """Record, train in both ways, score, and print a table."""
    folder = Path(sys.argv[1]).resolve()
    record(folder)
    runs = {way: folder / f"freeze_{way}" for way in WAYS}
    for way, options in WAYS.items():
        words = ("--from", "iquery.mini", "--data", folder / "taught", "--add-class", ",".join(NEW), *options)
        avsep("train", "iquery", *words, "--steps", 200, "--set", "validate_every=50", "-o", runs[way])
    words = ("--use", "label", "--workers", 2)
    avsep("evaluate", *runs.values(), "--data", folder / "taught", *words, "-o", folder / "scores_taught")
    avsep(
        "evaluate", "iquery.mini", *runs.values(), "--data", folder / "others", *words, "-o", folder / "scores_others"
    )
    print(f"{'':34}{'new':>8}{'reminded':>10}{'others':>8}")
    print(f"{'iquery.mini':34}{'':18}{improvement(folder / 'scores_others', 'iquery.mini', OTHERS):8.2f}")
    for way, run in runs.items():
        taught = [
            improvement(folder / "scores_taught", f"iquery.{run.name}", names) for names in (tuple(NEW), REMINDED)
        ]
        others = improvement(folder / "scores_others", f"iquery.{run.name}", OTHERS)
        print(f"{' '.join(WAYS[way]):34}{taught[0]:8.2f}{taught[1]:10.2f}{others:8.2f}")


if __name__ == "__main__":
    main()
