"""One self-contained HTML page about a separation: players, spectrograms, masks, pictures and numbers."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from avsep_zoo.errors import MediaError
from avsep_zoo.media.audio import resample
from avsep_zoo.page import COLOURS, data_uri, render_page
from avsep_zoo.report_pictures import boxed, heat_bar, localised
from avsep_zoo.spectrogram import (
    MASK_COLOURS,
    POWER_COLOURS,
    Axes,
    band_powers,
    colour_bar,
    mask_picture,
    power_picture,
)

if TYPE_CHECKING:
    from avsep_zoo.separation import Separation, Stem

__all__ = ["render"]

SHOWN_SECONDS = 60  # of sound that is embedded
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
BLOCK = 2**20  # samples


def render(separation: Separation, title: str) -> str:
    """Return the page as HTML; it names no other resource.

    Of a sound longer than 60 s the first 60 s are shown, and the page says so.

    Raises:
        MediaError: libsndfile was built without MP3.
    """
    rate = separation.rate
    shown = min(separation.mixture.shape[1], SHOWN_SECONDS * rate)
    mixture = _excerpt(separation.mixture, shown)
    high = min(rate / 2, 20000.0)
    columns = min(900, max(1, 16 * shown // max(1, rate // 11)))
    axes = Axes(shown / rate, min(50.0, high / 16), high, columns)
    power = band_powers(mixture, rate, axes)
    reference = float(power.max())
    peak = max(float(np.abs(_excerpt(w, shown)).max()) for w in _waveforms(separation))
    gain = 1 / max(1.0, peak)

    def sound(name: str, waveform: np.ndarray) -> dict[str, Any]:
        excerpt = _excerpt(waveform, shown)
        picture = power_picture(band_powers(excerpt, rate, axes), reference)
        return {"name": name, "audio": _mp3(excerpt * gain, rate), "power": data_uri("image/png", picture)}

    mixture_rms = _rms(separation.mixture)
    stems = [sound(s.name, s.waveform) | _details(separation, i, axes) for i, s in enumerate(separation.stems)]
    page = {
        "title": title,
        "summary": _summary(separation),
        "method": separation.method,
        "length": _length(separation.seconds),
        "shown": shown / rate if shown < separation.mixture.shape[1] else None,
        "gain_db": 20 * math.log10(gain),
        "rate": rate,
        "channels": separation.channels,
        "axes": axes,
        "power_bar": colour_bar(POWER_COLOURS),
        "mask_bar": colour_bar(MASK_COLOURS),
        "heat_bar": heat_bar(),
        "mixture": sound("Mixture", separation.mixture),
        "stems": stems,
        "masked": any("mask" in stem for stem in stems),
        "adds_up": separation.adds_up,
        "residual": separation.residual and sound("Residual", separation.residual.waveform),
        "numbers": [_numbers(separation, stem, mixture_rms) for stem in separation.tracks],
        "sampling": separation.sampling,
        "scored": bool(separation.scores),
        "notes": separation.notes,
    }
    return render_page("report.html.j2", page)


def _waveforms(separation: Separation) -> list[np.ndarray]:
    return [separation.mixture, *(track.waveform for track in separation.tracks)]


def _excerpt(waveform: np.ndarray, samples: int) -> np.ndarray:
    return np.nan_to_num(np.asarray(waveform[:, :samples], dtype=np.float32))


def _summary(separation: Separation) -> str:
    names = [stem.name for stem in separation.stems]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"
    channels = {1: "mono", 2: "stereo"}.get(separation.channels, f"{separation.channels}-channel")
    text = f"{separation.method} separated {listed} from {_length(separation.seconds)} of {channels} sound"
    if separation.adds_up:
        return f"{text}; stems and residual add up to the mixture."
    return f"{text}."


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"


def _details(separation: Separation, index: int, axes: Axes) -> dict[str, Any]:
    """What a stem's card shows beside sound and spectrogram: colour, cue, mask, and a picture or where it was found."""
    stem, colour = separation.stems[index], COLOURS[index % len(COLOURS)]
    details: dict[str, Any] = {
        "colour": colour,
        "cue": _cue(separation.cues[index]) if separation.cues else [],
    }
    frequencies, seconds = separation.mask_frequencies, separation.mask_seconds
    if stem.mask is not None and frequencies is not None and seconds is not None:
        details["mask"] = data_uri("image/png", mask_picture(stem.mask, frequencies, seconds, axes))
    found = separation.localisations[index] if separation.localisations is not None else None
    frame = separation.frames[index] if separation.frames is not None else None
    if found is not None and found.pictures:
        details["found"] = localised(found, stem.name, colour)
    elif frame is not None:
        box = separation.boxes[index] if separation.boxes is not None else None
        details["frame"] = boxed(frame, box, colour)
        if box is not None:  # where the label goes, in shares of the picture
            details["corner"] = [min(max(box[i] / frame.shape[1 - i], 0), 0.9) for i in (0, 1)]
    return details


def _cue(cue: dict[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(text(v) for v in value)
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return [(str(name), text(value)) for name, value in cue.items()]


def _numbers(separation: Separation, stem: Stem, mixture_rms: float) -> dict[str, Any]:
    """Level against the mixture over the whole length, and SDR before and after where known, in dB."""
    rms = _rms(stem.waveform)
    level = 20 * math.log10(rms / mixture_rms) if rms > 0 and mixture_rms > 0 else None
    scores = (separation.scores or {}).get(stem.name, {}) if stem is not separation.residual else {}
    before, after = (
        v if v is not None and math.isfinite(v) else None for v in (scores.get("before"), scores.get("after"))
    )
    change = after - before if before is not None and after is not None else None
    name = "Residual" if stem is separation.residual else stem.name
    return {"name": name, "level": level, "before": before, "after": after, "change": change}


def _rms(waveform: np.ndarray) -> float:
    starts = range(0, waveform.shape[1], BLOCK)
    energy = sum(float(np.square(waveform[:, s : s + BLOCK], dtype=np.float64).sum()) for s in starts)
    return math.sqrt(energy / max(1, waveform.size))


def _mp3(waveform: np.ndarray, rate: int) -> str:
    """Encode (channels, samples) as an MP3 data URI; more than two channels are mixed to one."""
    if len(waveform) > 2:
        waveform = waveform.mean(axis=0, keepdims=True)
    # Every browser plays MP3, and libsndfile notes the encoder delay, so players stay in step.
    mp3_rate = next((r for r in MP3_RATES if r >= rate), MP3_RATES[-1])
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, resample(waveform, rate, mp3_rate).T, mp3_rate, format="MP3")
    except (soundfile.SoundFileError, ValueError) as error:
        raise MediaError(f"The report needs MP3, which this libsndfile lacks ({error}); update soundfile.") from error
    return data_uri("audio/mpeg", buffer.getvalue())
