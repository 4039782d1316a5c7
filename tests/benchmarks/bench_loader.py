"""Time the making of training items against the straightforward way: bench_loader.py [SECONDS OF A CLIP ...].

An item is two sources: 65535 samples at 11025 Hz and three pictures each, cropped to the detection; then the same
with pictures of 224 x 224 pixels, normalised, as an image encoder takes them. The straightforward way loads the whole
sound with librosa, resamples it and slices; it opens every picture of the clip, or decodes every frame of the video,
and takes three. Clips are made by the generator: of 10 s, as its data sets have, and of 60 s, nearer to those of MUSIC
(20 to 240 s). One process, one thread; times are of the processor, with child processes (librosa calls ffmpeg).

Sound comes from the .wav or the .mp4, pictures from the .mp4 or from the stored .jpg of each second. Of 10 s of .wav
and .jpg an item takes 59 % of the sound and 3 of 10 pictures: decoded at the same speed, that is 1.7 times less sound
and 3.3 times fewer pictures, and no more is to be gained there by reading only what is needed.
"""

from __future__ import annotations

import functools
import os
import resource
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

RATE, LENGTH, SIZE = 11025, 65535, 224
SIDE = 192  # pixels of the generator's pictures
CLASSES = ("cello", "flute", "trumpet", "violin")
REPEATS, ITEMS = 7, 8  # rounds, and items in each


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def items_per_second(*ways: Callable[[int], object]) -> list[float]:
    """Return the median speed of each way; they take turns, so that a busy machine slows all of them."""
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(REPEATS + 1):
        for way, record in zip(ways, seconds, strict=True):
            start = processor_seconds()
            for item in range(ITEMS):
                way(turn * ITEMS + item)
            record.append((processor_seconds() - start) / ITEMS)
    return [1 / statistics.median(record[1:]) for record in seconds]


def make_clips(out: Path, seconds: float) -> list[Any]:
    """Two solos per class as the generator makes and stores them."""
    from avsep_zoo.data.reader import open_data
    from avsep_zoo.synth.clip import generator, play_soundfont
    from avsep_zoo.synth.files import write_clip
    from avsep_zoo.synth.scene import FPS, Actor, render_scene
    from avsep_zoo.synth.soundfont import FLUID_R3, find_soundfont

    rows = []
    for number, label in enumerate(CLASSES):
        for take in range(2):
            draws = generator("bench", label, take, seconds)
            sound, player = play_soundfont(label, find_soundfont(FLUID_R3), seconds, draws, draws)
            video, boxes = render_scene(draws, [Actor(label, player)], round(seconds * FPS))
            write_clip(out, label, number + 1, str(take), video, boxes[:, 0], sound)
            rows.append(f"/{label}/{take}.wav,/{label}/{take}.mp4,{int(seconds)}\n")
    (out / "train.csv").write_text("".join(rows))
    return open_data(out, "music").clips("train")


def plain_source(clip: Any, start: float) -> tuple[Any, list[Any]]:
    """Sound (65535,) and three PIL pictures of a clip around the middle of the segment, the straightforward way."""
    import av
    import librosa
    import numpy as np
    from PIL import Image

    sound = librosa.load(clip.audio, sr=RATE)[0][int(start * RATE) :][:LENGTH]
    sound = np.pad(sound, (0, LENGTH - len(sound)))
    if clip.video is None:
        pictures = [Image.open(path).convert("RGB") for path in sorted(clip.frames.glob("*.jpg"))]
        times = [number + 0.5 for number in range(len(pictures))]
    else:
        with av.open(str(clip.video)) as container:
            decoded = [(frame.time, frame.to_image()) for frame in container.decode(video=0)]
        times, pictures = [time for time, _ in decoded], [picture for _, picture in decoded]
    rows = np.load(clip.detections)
    centre = int(start + LENGTH / RATE / 2) + 0.5
    chosen = []
    for wanted in (centre - 1, centre, centre + 1):
        place = max(place for place, time in enumerate(times) if time <= wanted + 1e-4)
        row = rows[np.abs(rows[:, 0] - 0.5 - wanted).argmin()]
        low, high = np.floor(row[3:5]).clip(0), np.ceil(row[5:7]).clip(0, SIDE)
        chosen.append(pictures[place].crop((*low, *high)))
    return sound, chosen


def plain_view(pictures: Sequence[Any]) -> Any:
    """Resize, cut the centre out and normalise, as torchvision's transforms do it one by one."""
    import numpy as np
    import torch

    from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD, centre_view

    mean, std = (torch.from_numpy(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    planes = [torch.from_numpy(np.array(centre_view(p, SIZE))).permute(2, 0, 1).contiguous() for p in pictures]
    return torch.stack([(plane.float().div(255) - mean) / std for plane in planes], dim=1)


def plain_item(clips: Sequence[Any], view: bool, index: int) -> list[Any]:
    import numpy as np

    rng = np.random.default_rng(index)
    item = []
    for place in rng.choice(len(clips), 2, replace=False):
        clip = clips[place]
        sound, pictures = plain_source(clip, rng.uniform(0, clip.frame_count - LENGTH / RATE))
        item.append((sound, plain_view(pictures) if view else pictures))
    return item


def prepare(view: bool, cues: Sequence[Any], **_: Any) -> Any:
    """What an encoder does with its cues: nothing, or the view of their frames."""
    import torch
    from PIL import Image

    from avsep_zoo.contracts import CueBatch
    from avsep_zoo.pictures import centre_view, normalise

    if not view:
        return CueBatch({"frames": [[cue.frames for cue in cues]]})
    views = [normalise([centre_view(Image.fromarray(p), SIZE) for p in cue.frames]) for cue in cues]
    return CueBatch({"frames": torch.stack([torch.from_numpy(v) for v in views])[None]})


def differences(clips: Sequence[Any]) -> tuple[float, int]:
    """Sound: level of the difference against the sound in dB. Pictures: largest difference of a pixel."""
    import numpy as np

    from avsep_zoo.data.frames import clip_frames
    from avsep_zoo.data.segment import read_segment

    powers, pixels = np.zeros(2), 0
    for clip in clips:
        start = 2.0
        sound, pictures = plain_source(clip, start)
        ours = read_segment(clip.audio, RATE, LENGTH, start)
        inner = slice(200, -200)  # the ends of a segment, which a resampler takes for silence beyond, aside
        powers += [np.square(ours - sound)[inner].sum(), np.square(sound[inner]).sum()]
        frames = clip_frames(clip, start + LENGTH / RATE / 2)
        assert frames is not None
        for frame, picture in zip(frames, pictures, strict=True):
            top, left = ((a - b) // 2 for a, b in zip(frame.shape, (picture.height, picture.width), strict=False))
            cut = frame[top : top + picture.height, left : left + picture.width].astype(int)
            pixels = max(pixels, int(np.abs(cut - np.asarray(picture)).max()))
    return 10 * float(np.log10(powers[0] / powers[1])), pixels


def cases(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    for seconds in [int(argument) for argument in sys.argv[1:]] or [10, 60]:
        out = folder / str(seconds)
        out.mkdir()
        clips = make_clips(out, seconds)
        yield f"{seconds} s .wav and .jpg", [replace(clip, video=None) for clip in clips]
        videos = [out / "videos" / clip.id for clip in clips]
        paths = [path.with_name(f"{path.name}.mp4") for path in videos]
        filmed = [replace(clip, video=path, frames=None) for clip, path in zip(clips, paths, strict=True)]
        yield f"{seconds} s .wav and .mp4", filmed
        yield f"{seconds} s .mp4", [replace(clip, audio=clip.video) for clip in filmed]


def main() -> None:
    """Print how far the two ways differ, items per second per core of each, and their ratio."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # read once, when NumPy and SciPy are imported
    warnings.simplefilter("ignore")  # librosa warns of every .mp4
    import torch

    from avsep_zoo.data.mix_and_separate import MixAndSeparate

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, clips in cases(Path(folder)):
            sound, pixels = differences(clips)
            print(f"{name:20s} difference of sounds {sound:.0f} dB, of pixels at most {pixels} of 255")
            for stage, view in (("read and cropped", False), ("as network input", True)):
                ours = MixAndSeparate(
                    clips, functools.partial(prepare, view), rate=RATE, length=LENGTH, items=REPEATS * ITEMS + ITEMS
                )
                slow, fast = items_per_second(functools.partial(plain_item, clips, view), ours.__getitem__)
                print(
                    f"{name:20s} {stage}: straightforward {slow:6.1f} items/s  ours {fast:6.1f} items/s  "
                    f"ratio {fast / slow:.1f}"
                )


if __name__ == "__main__":
    main()
