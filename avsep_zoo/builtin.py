"""The parts that come with the core, registered the way a plugin does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsep_zoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from avsep_zoo.registry import Register


@hookimpl
def avsep_register(register: Register) -> None:
    """Register the core's own parts, its readers of data sets, detectors and motion features."""
    register.front_end(
        "stft",
        "avsep_zoo.front_end:StftFrontEnd",
        "STFT, optionally on a log-frequency axis",
        small={
            "rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 128, "align_corners": True,
            "log_scale": 0.15,
        },
    )  # fmt: skip
    register.encoder(
        "frames",
        "avsep_zoo.blocks.frame_encoder:FrameEncoder",
        "pooled ResNet-18 features of pictures",
        small={"width": 2, "object_features": 8, "frames": 2, "image_size": 32},
    )
    register.conditioner(
        "film", "avsep_zoo.blocks.film:Film", "a vector scales and shifts channels", small={"hidden": 16}
    )
    register.conditioner("tiled_concat", "avsep_zoo.blocks.tiled_concat:TiledConcat", "a vector at every point")
    register.separator(
        "mask_unet",
        "avsep_zoo.blocks.unet:MaskUNet",
        "Sound-of-Pixels U-Net with sigmoid masks",
        small={"width": 4, "levels": 5, "mask_features": 4},
    )
    register.driver(
        "diffusion",
        "avsep_zoo.generative.diffusion:Diffusion",
        "denoising diffusion: DDIM, DPM-Solver++",
        small={"steps": 2},
    )
    register.driver(
        "flow", "avsep_zoo.generative.flow:Flow", "flow matching: Euler and second-order solvers", small={"steps": 2}
    )
    register.objective(
        "generative",
        "avsep_zoo.generative.objective:GenerativeObjective",
        "errors of a driver on the sources",
        small={"scale": 1.0, "learning_rate": 1e-3},
    )
    register.objective(
        "masks",
        "avsep_zoo.blocks.mask_objective:MaskObjective",
        "weighted mask distance",
        small={"mixture": "sum", "learning_rate": 1e-3},
    )
    register.reader("music", "avsep_zoo.data.readers.music:MusicReader", "MUSIC and MUSIC-21 index files")
    register.reader("ave", "avsep_zoo.data.readers.ave:AveReader", "AVE index files")
    register.reader("vggsound", "avsep_zoo.data.readers.vggsound:VggSoundReader", "VGGSound by text or by instrument")
    register.reader("audiocaps", "avsep_zoo.data.readers.audiocaps:AudioCapsReader", "AudioCaps with parsed captions")
    register.reader("asiw", "avsep_zoo.data.readers.asiw:AsiwReader", "ASIW with its detections")
    register.reader("duets", "avsep_zoo.data.readers.duets:DuetsReader", "Synthetic-Duet of IAL-CMS")
    register.reader("folder", "avsep_zoo.data.readers.folder:FolderReader", "a plain folder, class/clip.mp4 or .wav")
    register.detector("faster_rcnn", "avsep_zoo.detection.faster_rcnn:FasterRcnn", "torchvision Faster R-CNN")
    register.detector("zero_shot", "avsep_zoo.detection.zero_shot:ZeroShot", "OWLv2 or Grounding DINO by text labels")
    register.motion("video_net", "avsep_zoo.detection.video_net:VideoNet", "torchvision video network")
    register.motion(
        "frame_difference", "avsep_zoo.detection.frame_difference:FrameDifference", "changes of the picture"
    )
