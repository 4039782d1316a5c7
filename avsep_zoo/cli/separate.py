"""``avsep separate``: take a recording apart, one stem per cue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsep_zoo.cli import stems
from avsep_zoo.cli.cue_detections import Surroundings
from avsep_zoo.cli.cue_options import all_cues, check_examples, check_media
from avsep_zoo.cli.detector_options import DetectorName, DetectorWeights, MinScore
from avsep_zoo.cli.terminal import busy, console, cue_warnings, print_json, seconds_bar
from avsep_zoo.errors import AvsepError

__all__ = ["Device", "choose_device", "separate"]

Device = Literal["auto", "cpu", "cuda"]


def separate(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Any sound or video file that FFmpeg reads.", show_default=False),
    ],
    cue: Annotated[
        list[str] | None,
        typer.Option(metavar="CUE", help="A source: CLASS, CLASS@BOX or @BOX; repeatable.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What to hear, or 'everything but' what, in words; each source of it is a cue; repeatable.",
        ),
    ] = None,
    example: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A sound like the one to hear; repeatable. Stems: cues, texts, examples."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Folder for the stems (default: FILE's name with -stems)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A method, a variant, the folder of a weights card, or hf://org/name@commit (default: iquery; for "
            "words or examples bimodal_sep).",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(metavar="NAME", help="Other weights for the method: the name or folder of a card, or hf://..."),
    ] = "default",
    device: Annotated[Device, typer.Option(help="Where to compute; auto takes a GPU where there is one.")] = "auto",
    no_consistency: Annotated[
        bool, typer.Option("--no-consistency", help="Leave the masks as they are, and write no residual.")
    ] = False,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=0.75, help="Share of a segment cross-faded with the next one.")
    ] = 0.5,
    detections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What is seen around the sources, as 'avsep detect' writes it."),
    ] = None,
    detector: DetectorName = None,
    detector_weights: DetectorWeights = None,
    context_label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="What zero_shot looks for besides the classes of cues; repeatable."),
    ] = None,
    min_score: MinScore = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of a generative model: more take longer (default: its own).", show_default=False
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Solver of a generative model; 'avsep info' lists them.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise that a generative model starts from.")] = 0,
    report: Annotated[bool, typer.Option(help="Write report.html: players, spectrograms, masks.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier separation in DIR.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take a recording apart: one stem per cue.

    The stems keep the sample rate, channels and length of the recording; with the residual they add up to it.

    A cue is a class ([bold]violin[/bold]), a class and where it is seen ([bold]violin@0,20,190,180[/bold]:
    the corners x1,y1,x2,y2 in pixels of the video), or only where it is seen ([bold]@0,20,190,180[/bold]).

    [bold]avsep separate duet.mp4 --cue violin --cue flute -o stems[/bold]
    [bold]avsep separate duet.mp4 --cue violin@0,20,190,180 --cue @195,20,380,180[/bold]

    A method that goes by words takes a caption, or what to leave out; one that goes by sound takes examples:

    [bold]avsep separate clip.wav --text "a violin plays while a flute sings"[/bold]
    [bold]avsep separate clip.wav --text "everything but the violin"[/bold]

    A method that goes by pictures needs a box per cue; a generative one has a dial, too:

    [bold]avsep separate duet.mp4 --model davis_flow --cue a@0,20,190,180 --cue b@195,20,380,180 --steps 8[/bold]

    One that goes by what is seen around a source takes detections, from a file or from a detector that looks now:

    [bold]avsep separate duet.mp4 --model avsgs --cue violin --cue flute --detections duet-detections.safetensors[/bold]
    """
    cues = all_cues(cue or (), text or (), example or ())
    folder = out if out is not None else Path(f"{file.stem}-stems")
    stems.check_folder(folder, overwrite=overwrite)
    check_media(file, cues)
    check_examples(example or ())
    context = tuple(label.strip() for label in context_label or () if label.strip())
    surroundings = Surroundings(file, detections, detector, detector_weights, min_score, context)
    surroundings.check()
    detected = surroundings.read()
    model = model or ("bimodal_sep" if text or example else "iquery")
    with busy(f"Loading {model}"):
        from avsep_zoo.load import load

        loaded = load(model, weights=weights, device=choose_device(device))
    cues, notes = surroundings.add_to(cues, detected, loaded, str(loaded.device))
    started = time.monotonic()
    with cue_warnings() as told, seconds_bar("Separating") as advance:
        result = loaded.separate(
            file,
            cues,
            consistency=not no_consistency,
            overlap=overlap,
            seed=seed,
            steps=steps,
            solver=solver,
            progress=advance,
        )
    seconds = time.monotonic() - started
    result.notes += notes
    saved = stems.save(result, folder, report=report, overwrite=overwrite)
    if as_json:
        run = {"file": str(file), "device": str(loaded.device), "separation_seconds": round(seconds, 2)}
        print_json(run | saved.to_dict())
        return
    console().print(
        f"{loaded.name} on {loaded.device} separated {result.seconds:.1f} s of sound in {seconds:.1f} s.\n",
        soft_wrap=True,
    )
    saved.show(told)


def choose_device(wanted: Device) -> str:
    """Return the name of a torch device.

    Raises:
        AvsepError: ``cuda`` is wanted and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise AvsepError("There is no CUDA device here; leave out --device cuda or see 'avsep doctor'.")
    return "cuda" if available and wanted != "cpu" else "cpu"
