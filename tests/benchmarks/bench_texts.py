"""How much the wording matters: the same mixtures, asked for in different words: bench_texts.py DATA [MODEL] [COUNT].

DATA is what ``avsep synth`` writes. Each of COUNT mixtures of its list ``testsep`` is separated by the labels' prompts,
by the plainest name of each instrument, by its other names, by captions that are drawn, by one sentence for both
sources that is parsed, and by an example: another recording of the class. Printed is the mean SDR improvement in dB
over the sources and its standard error. About two minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from avsep_zoo import Cue, load
from avsep_zoo.caption_cues import cues_of_caption
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.data.reader import open_data
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.synth.captions import caption, names

Words = Callable[[Sequence[Clip], np.random.Generator], list[Cue]]


def labels(clips: Sequence[Clip]) -> list[str]:
    return [str(clip.label) for clip in clips]


def one_sentence(clips: Sequence[Clip], rng: np.random.Generator) -> list[Cue]:
    """A sentence that names both, drawn until the parser finds the order and number of the sources."""
    phrases = [caption([label], rng) for label in labels(clips)]
    link = ("while", "as", "and", "with")[int(rng.integers(4))]
    return cues_of_caption(f"{phrases[0]} {link} {phrases[1]}")


def wordings(clips: Sequence[Clip]) -> dict[str, Words]:
    """What a mixture is asked for by; ``clips`` are all there are, to take examples from."""
    by_class: dict[str, list[Clip]] = {}
    for clip in clips:
        by_class.setdefault(str(clip.label), []).append(clip)

    def example(clip: Clip, rng: np.random.Generator) -> Cue:
        others = [other for other in by_class[str(clip.label)] if other.audio != clip.audio]
        return Cue(audio=others[int(rng.integers(len(others)))].audio)

    def other_name(label: str, rng: np.random.Generator) -> Cue:
        several = names(label)[1:] or names(label)
        return Cue(text=several[int(rng.integers(len(several)))])

    return {
        "the label's prompt": lambda clips, rng: [Cue(text=sound_prompt([label])) for label in labels(clips)],
        "the plainest name": lambda clips, rng: [Cue(text=names(label)[0]) for label in labels(clips)],
        "another name, where there is one": lambda clips, rng: [other_name(label, rng) for label in labels(clips)],
        "a caption": lambda clips, rng: [Cue(text=caption([label], rng)) for label in labels(clips)],
        "one sentence for both, parsed": one_sentence,
        "an example of the sound": lambda clips, rng: [example(clip, rng) for clip in clips],
    }


def improvement(model: torch.nn.Module, sources: torch.Tensor, cues: list[Cue]) -> np.ndarray:
    """SDR improvement (N,) of one mixture of sources (N, L)."""
    mixture = sources.sum(dim=0, keepdim=True)
    batch = {"mixture": mixture, "cues": model.encoder.prepare(cues, video=None, time=0.0)}
    with torch.inference_mode():
        estimates = model.waveforms(batch, length=sources.shape[1])[0]
    both = torch.stack([estimates, mixture.expand_as(sources)])
    sdr = bss_eval(sources, both).sdr
    return sdr[0] - sdr[1]


def main() -> None:
    data, name, count = Path(sys.argv[1]), *(sys.argv[2:3] or ["bimodal_sep"]), int((sys.argv[3:4] or [100])[0])
    model = load(name)
    reader = open_data(data)
    mixtures = reader.mixtures("testsep")[:count]
    every = [clip for mixture in reader.mixtures("testsep") for clip in mixture]
    front = model.front_end
    items = FixedMixtures(mixtures, None, rate=front.rate, length=front.length, reads=frozenset({"label"}))
    rows: dict[str, list[np.ndarray]] = {}
    failed = dict.fromkeys(wordings(every), 0)
    for number, clips in enumerate(mixtures):
        sources = items[number]["sources"]
        for title, ask in wordings(every).items():
            cues = ask(clips, np.random.default_rng(number))
            if len(cues) != len(clips):
                failed[title] += 1
                continue
            rows.setdefault(title, []).append(improvement(model, sources, cues))
    for title, values in rows.items():
        gains = np.concatenate(values)
        error = gains.std() / len(gains) ** 0.5
        note = f"; {failed[title]} sentences did not give two sources" if failed[title] else ""
        print(f"{title:<35} {gains.mean():6.2f} +- {error:.2f} dB, {len(gains)} sources{note}")


if __name__ == "__main__":
    main()
