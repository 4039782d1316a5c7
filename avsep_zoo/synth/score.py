"""Random scores: what one instrument plays in one clip, note by note, with its expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avsep_zoo.synth.instruments import Instrument, Voice

__all__ = ["Note", "Score", "Vibrato", "compose_score"]

_MODES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 10),  # minor
    (0, 2, 3, 5, 7, 9, 10),  # dorian
    (0, 2, 4, 5, 7, 9, 10),  # mixolydian
    (0, 2, 3, 5, 7, 8, 11),  # harmonic minor
    (0, 2, 4, 7, 9),  # pentatonic
    (0, 3, 5, 6, 7, 10),  # blues
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),  # chromatic
)
_RHYTHMS = (  # note lengths in beats; a negative length is a rest
    (1, 1, 1, 1), (0.5,) * 8, (0.25,) * 12, (1.5, 0.5, 1, 1), (0.5, 0.5, 1, 0.5, 0.5, 1), (0.75, 0.25) * 3,
    (1 / 3,) * 6 + (1, 1), (2, 1, 1), (2, 2), (4,), (0.25, 0.25, 0.5) * 3, (0.5, 0.25, 0.25) * 3,
    (1, -0.5, 0.5, 1, -1), (0.5, -0.5) * 4, (3, 1), (1, 0.5, 0.25, 0.25, 2), (-0.5, 0.5, 0.5, 0.5, 1.5, -0.5),
)  # fmt: skip
_STYLES = ("walk", "walk", "scale", "arpeggio", "long", "leaps", "repeat", "trill")


@dataclass(frozen=True)
class Note:
    """One note: start and length in seconds, MIDI pitch and velocity, and the bend it slides from (cents)."""

    start: float
    duration: float
    pitch: int
    velocity: int
    glide: float = 0.0


@dataclass(frozen=True)
class Vibrato:
    """Pitch oscillation of long notes: rate in Hz, depth in cents, onset delay in seconds."""

    rate: float
    depth: float
    delay: float


@dataclass(frozen=True)
class Score:
    """Everything played in one clip: notes in order of their start, and what shapes them."""

    voice: Voice
    notes: tuple[Note, ...]
    tuning: float  # cents, the whole clip
    vibrato: Vibrato | None = None
    swells: tuple[tuple[float, float], ...] = ()  # (seconds, expression 0..1), linear in between


def _ladder(rng: np.random.Generator, voice: Voice) -> list[int]:
    """Pitches of one random key and mode inside a random part of the range, extreme registers included."""
    width = int(rng.integers(8, 27))
    low = int(rng.integers(voice.low, max(voice.low + 1, voice.high - width + 1)))
    high = min(voice.high, low + width)
    mode, key = _MODES[int(rng.integers(len(_MODES)))], int(rng.integers(12))
    return [pitch for pitch in range(low, high + 1) if (pitch - key) % 12 in mode] or [low]


def _motif(rng: np.random.Generator, rungs: int) -> list[tuple[int, float]]:
    """One bar or two of (rung of the ladder, beats); a rest has negative beats."""
    style = _STYLES[int(rng.integers(len(_STYLES)))]
    rhythm: tuple[float, ...] = _RHYTHMS[int(rng.integers(len(_RHYTHMS)))]
    if style == "long":
        rhythm = ((4,), (2, 2), (3, -1), (6,))[int(rng.integers(4))]
    elif style == "trill":
        rhythm = (0.125 if rng.random() < 0.5 else 0.25,) * int(rng.integers(8, 17))
    place, direction = int(rng.integers(rungs)), 1 if rng.random() < 0.5 else -1
    motif = []
    for number, beats in enumerate(rhythm):
        motif.append((min(max(place, 0), rungs - 1), beats))
        if style == "walk":
            place += int(rng.choice((-2, -1, -1, 0, 1, 1, 2)))
        elif style in ("scale", "arpeggio"):
            step = direction * (1 if style == "scale" else 2)
            if not 0 <= place + step < rungs:
                direction, step = -direction, -step
            place += step
        elif style == "leaps":
            place = int(rng.integers(rungs))
        elif style == "trill":
            place += 1 if number % 2 == 0 else -1
        elif style == "long":
            place += int(rng.integers(-4, 5))
        place = min(max(place, 0), rungs - 1)
    return motif


def _harmony(rng: np.random.Generator, instrument: Instrument) -> str:
    """How a note of the melody is thickened in this clip."""
    if instrument.chords:
        return str(
            rng.choice(("none", "block", "strum", "broken", "bass", "octaves"), p=(0.3, 0.2, 0.15, 0.15, 0.12, 0.08))
        )
    if instrument.excitation == "bowed" and rng.random() < 0.15:
        return "double_stop"
    return "none"


def _thicken(
    rng: np.random.Generator,
    harmony: str,
    ladder: list[int],
    rung: int,
    note: Note,
    voice: Voice,
    strong: bool,
) -> list[Note]:
    """The notes that sound together with one melody note."""

    def beside(pitch: int, delay: float = 0.0, loudness: float = 0.85) -> Note:
        while pitch > voice.high:
            pitch -= 12
        while pitch < voice.low:
            pitch += 12
        velocity = min(127, max(1, int(note.velocity * loudness)))
        return Note(note.start + delay, max(0.05, note.duration - delay), pitch, velocity)

    triad = [ladder[(rung + step) % len(ladder)] for step in (2, 4)]
    if harmony == "block" and strong:
        return [beside(pitch) for pitch in (*triad, note.pitch - 12)]
    if harmony == "strum" and strong:
        gap = float(rng.uniform(0.008, 0.04))
        return [beside(p, gap * (i + 1)) for i, p in enumerate((*triad, note.pitch + 12, note.pitch - 12))]
    if harmony == "broken":
        gap = note.duration / 4
        return [beside(pitch, gap * (i + 1), 0.75) for i, pitch in enumerate((triad[0], triad[1], triad[0]))]
    if harmony == "bass" and strong:
        return [beside(note.pitch - 24), beside(note.pitch - 12, note.duration / 2, 0.7)]
    if harmony == "octaves":
        return [beside(note.pitch - 12, 0.0, 1.0)]
    if harmony == "double_stop" and note.duration > 0.25:
        return [beside(note.pitch - int(rng.choice((3, 4, 5, 7, 8, 9))), 0.0, 0.9)]
    return []


def compose_score(rng: np.random.Generator, instrument: Instrument, seconds: float) -> Score:
    """A random score of ``seconds`` for one instrument that has a voice.

    Drawn at random: key, mode, tempo (50 to 180 beats a minute), register, phrases with repetition and rests,
    rhythm, articulation, dynamics, chords, vibrato, glides and tuning (up to 40 cents either way).
    """
    voice = instrument.voices[int(rng.integers(len(instrument.voices)))]
    ladder = _ladder(rng, voice)
    beat = 60.0 / float(rng.uniform(50, 180))
    motifs = [_motif(rng, len(ladder)) for _ in range(int(rng.integers(2, 5)))]
    harmony = _harmony(rng, instrument)
    touches = rng.choice((rng.uniform(0.2, 0.5), rng.uniform(0.75, 0.95), 1.04), 2, p=(0.25, 0.4, 0.35))
    base, accent = float(rng.uniform(45, 112)), float(rng.uniform(0, 22))
    slope = float(rng.uniform(-25, 25)) / seconds
    slides = instrument.glides and rng.random() < 0.3
    time, notes, last = float(rng.uniform(0.0, 0.5)), list[Note](), None
    while time < seconds - 0.15:
        motif = motifs[min(int(rng.geometric(0.45)) - 1, len(motifs) - 1)]
        shift = int(rng.integers(-3, 4)) if rng.random() < 0.5 else 0
        held = float(touches[0 if rng.random() < 0.6 else 1])  # staccato, detached or legato, phrase by phrase
        for number, (rung, beats) in enumerate(motif):
            length = max(0.06, abs(beats) * beat)
            if not instrument.sustained and beats >= 4:
                length /= 2  # a plucked or struck note has died away by then
            if beats > 0 and time < seconds - 0.1:
                rung = min(max(rung + shift, 0), len(ladder) - 1)
                pitch, strong = ladder[rung], number % 2 == 0
                velocity = base + slope * time + (accent if strong else 0) + float(rng.normal(0, 6))
                glide = 0.0
                if slides and last is not None and rng.random() < 0.4:
                    glide = float(np.clip((last - pitch) * 100, -500, 500))
                start = max(0.0, time + float(rng.normal(0, 0.008)))
                note = Note(start, max(0.05, length * held), pitch, int(np.clip(velocity, 18, 127)), glide)
                notes += [note, *_thicken(rng, harmony, ladder, rung, note, voice, strong)]
                last = pitch
            time += length
        if rng.random() < 0.3:
            time += float(rng.choice((0.5, 1.0, 2.0))) * beat
    notes = sorted((n for n in notes if n.start < seconds - 0.05), key=lambda n: (n.start, n.pitch))
    vibrato = None
    if instrument.sustained and instrument.excitation != "free_reed" and harmony == "none" and rng.random() < 0.6:
        depth = float(rng.uniform(8, 45))
        vibrato = Vibrato(float(rng.uniform(4.2, 7.0)), depth, float(rng.uniform(0.05, 0.35)))
    swells: tuple[tuple[float, float], ...] = ()
    if instrument.sustained and rng.random() < 0.5:
        points = np.sort(rng.uniform(0, seconds, int(rng.integers(3, 9))))
        swells = tuple((float(t), float(rng.uniform(0.45, 1.0))) for t in points)
    return Score(voice, tuple(notes), float(rng.uniform(-40, 40)), vibrato, swells)
