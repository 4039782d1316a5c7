"""Checks of what flows between the parts: shapes, types and ranges of every stage, and plans against what is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avsep_zoo.contracts import Bound, CueBatch, Spectrum
from avsep_zoo.generative.contract import DrivenSeparator
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.testing.subject import Subject
from avsep_zoo.testing.verdict import NotApplicable, Rule

__all__ = ["check_analyse", "check_encode", "check_estimate", "check_masks", "check_plans", "check_synthesise"]

_ANALYSE = Rule(
    "FrontEnd.analyse takes waveforms (B, L) and returns a Spectrum of float features and warped magnitudes (B, 1, "
    "F', T'), linear magnitudes (B, 1, F, T) from 0 on, a complex phase of modulus 1 and a gain (B, 1, 1, 1) or "
    "None, all finite, since any separator must be able to read what any front end gives.",
    "an axis of size 1 that was squeezed away or never added, or a logarithm of 0 without an offset.",
)
_ENCODE = Rule(
    "CueEncoder.prepare returns a CueBatch with leading axes (1, N), and forward an Embedding that has exactly the "
    "views of `gives`, in its widths: vector (B, N, D), tokens (B, N, K, D) with tokens_bias (B, N, K), map (B, N, "
    "D, H, W), index int64 (B, N) below its width, since conditioners are built for these widths before any cue is "
    "seen.",
    "the axes B and N were flattened and not put back, or `gives` was not changed together with the last layer.",
)
_ESTIMATE = Rule(
    "a separator returns an Estimate of float32 values (B, N, F', T') on the axes of the features it was given, one"
    " per source in the order of the cues, of the kind mask, magnitude or features, with logits of the same shape "
    "or None and a localisation (B, N, h, w) in [0, 1] or None.",
    "the axes (B N) were split as (N B), an upsampling that ends one row or frame off, or the output of mixed "
    "precision that was not cast back with .float().",
)
_SYNTHESISE = Rule(
    "FrontEnd.synthesise returns float waveforms (B, N, L') that are finite; L' is `length` where it is given, else"
    " a whole number of hops, and FrontEnd.mask returns masks (B, N, F, T) on the axes of the linear magnitude, "
    "from 0 on.",
    "`length` was not passed on to the inverse transform, or the mask was not brought back from the warped axes.",
)
_MASKS = Rule(
    "estimates of the kind mask lie in [0, 1], or up to the `largest_mask` that your test class declares, estimates"
    " of the kind magnitude are not negative, and all are finite, also for silence and for a loud mixture, since "
    "recordings have both.",
    "the activation (a sigmoid) was left out, logits were returned as values, or something is divided by a level "
    "that is 0 in silence.",
)
_PLANS = Rule(
    "the class method `plan(**config)` describes exactly what the constructor builds from the same settings: views "
    "and widths of an encoder, sites of a separator in forward order with the channels that arrive there, widths of"
    " what leaves a conditioner's sites. Parts of other plugins are checked and built from plans alone.",
    "a setting that changes a width was added to the constructor and not to `plan`, or a site is never called.",
)


def check_analyse(subject: Subject) -> None:
    """Shapes, types and ranges of what the front end analyses."""
    mixture = subject.mixture()
    with _ANALYSE.during("The front end"):
        spectrum = subject.model.front_end.analyse(mixture)
    batch = len(mixture)
    for name in ("features", "warped", "magnitude", "phase"):
        value = getattr(spectrum, name)
        _ANALYSE.need(
            isinstance(value, Tensor) and value.ndim == 4 and value.shape[:2] == (batch, 1),
            f"Spectrum.{name} of mixtures {_shape(mixture)} is {_shape(value)}.",
        )
        _ANALYSE.need(bool(torch.isfinite(value).all()), f"Spectrum.{name} has values that are not finite.")
        wanted = value.is_complex() if name == "phase" else value.is_floating_point()
        _ANALYSE.need(wanted, f"Spectrum.{name} is of the type {value.dtype}.")
    assert spectrum.phase is not None
    for one, other in (("features", "warped"), ("magnitude", "phase")):
        shapes = [getattr(spectrum, name).shape for name in (one, other)]
        _ANALYSE.need(shapes[0] == shapes[1], f"Spectrum.{one} is {tuple(shapes[0])} and {other} {tuple(shapes[1])}.")
    _ANALYSE.need(bool((spectrum.magnitude >= 0).all()), "Spectrum.magnitude has negative values.")
    modulus = float((spectrum.phase.abs() - 1).abs().max())
    _ANALYSE.need(modulus < 1e-3, f"Spectrum.phase has a modulus {modulus:.3g} away from 1.")
    gain = spectrum.gain
    _ANALYSE.need(gain is None or gain.shape == (batch, 1, 1, 1), f"Spectrum.gain is {_shape(gain)}.")


def check_encode(subject: Subject) -> None:
    """Shapes and types of prepared cues and of their embedding."""
    encoder = subject.model.encoder
    if subject.fetches:
        raise NotApplicable("The encoder fetches something when the first cue comes, so nothing is encoded here.")
    with _ENCODE.during("Preparing and encoding the cues of two mixtures of two sources"), torch.no_grad():
        cues = subject.cues()
        embedding = subject.model.encode(cues)
    for name, value in cues.values.items() if isinstance(cues, CueBatch) else ():
        leading = tuple(value.shape[:2]) if isinstance(value, Tensor) else (len(value), len(value[0]))
        _ENCODE.need(leading == (2, 2), f"CueBatch.values[{name!r}] has the leading axes {leading}, not (2, 2).")
    for name, held in cues.present.items() if isinstance(cues, CueBatch) else ():
        fits = held.shape == (2, 2) and held.dtype == torch.bool
        _ENCODE.need(fits, f"CueBatch.present[{name!r}] is {_shape(held)} of {held.dtype}, not bool (2, 2).")
    dims = {"vector": 3, "tokens": 4, "map": 5, "index": 2}
    given = {name for name in dims if getattr(embedding, name) is not None}
    _ENCODE.need(
        given == set(encoder.gives), f"The embedding has the views {sorted(given)}, not {sorted(encoder.gives)}."
    )
    for name, width in encoder.gives.items():
        value = getattr(embedding, name)
        _ENCODE.need(value.ndim == dims[name] and value.shape[:2] == (2, 2), f"The view {name} is {_shape(value)}.")
        if name == "index":
            fits = value.dtype == torch.int64 and int(value.max()) < width
            _ENCODE.need(fits, f"The view index is {value.tolist()} of {value.dtype} and `gives` says {width}.")
            continue
        _ENCODE.need(bool(torch.isfinite(value).all()), f"The view {name} has values that are not finite.")
        found = value.shape[2] if name == "map" else value.shape[-1]
        _ENCODE.need(found == width, f"The view {name} has the width {found} and `gives` says {width}.")
    if embedding.tokens is not None and embedding.tokens_bias is not None:
        fits = embedding.tokens_bias.shape == embedding.tokens.shape[:3]
        _ENCODE.need(fits, f"tokens_bias is {_shape(embedding.tokens_bias)} and tokens {_shape(embedding.tokens)}.")


def check_estimate(subject: Subject) -> None:
    """Shapes, types and kind of the separator's answer."""
    features = subject.spectrum().features
    with _ESTIMATE.during("Estimating two mixtures of two sources"):
        estimate = subject.estimate()
    wanted = (len(features), 2, *features.shape[2:])
    values, logits, where = estimate.values, estimate.logits, estimate.localisation
    _ESTIMATE.need(
        tuple(values.shape) == wanted,
        f"Estimate.values is {_shape(values)} for features {_shape(features)}, not {wanted}.",
    )
    _ESTIMATE.need(values.dtype == torch.float32, f"Estimate.values is of the type {values.dtype}.")
    kinds = ("mask", "magnitude", "features")
    _ESTIMATE.need(estimate.kind in kinds, f"Estimate.kind is {estimate.kind!r}, not one of {', '.join(kinds)}.")
    _ESTIMATE.need(
        logits is None or tuple(logits.shape) == wanted, f"Estimate.logits is {_shape(logits)}, not {wanted}."
    )
    inside = where is None or (where.shape[:2] == wanted[:2] and 0 <= float(where.min()) <= float(where.max()) <= 1)
    _ESTIMATE.need(inside, f"The localisation is {_shape(where)} and not within [0, 1] for each source.")


def check_synthesise(subject: Subject) -> None:
    """Shapes, types and lengths of masks on the linear axis and of waveforms."""
    front, spectrum, estimate = subject.model.front_end, subject.spectrum(), subject.estimate()
    with _SYNTHESISE.during("The way back from an estimate"), torch.no_grad():
        mask = front.mask(estimate, spectrum)
        waves = {length: front.synthesise(estimate, spectrum, length=length) for length in (front.length, None)}
    wanted = (len(mask), 2, *spectrum.magnitude.shape[2:])
    _SYNTHESISE.need(tuple(mask.shape) == wanted, f"FrontEnd.mask gave {_shape(mask)}, not {wanted}.")
    _SYNTHESISE.need(bool((mask >= 0).all()), f"FrontEnd.mask gave {float(mask.min()):.3g} as its least value.")
    for length, wave in waves.items():
        fits = wave.shape[:2] == (2, 2) and wave.ndim == 3 and wave.is_floating_point()
        _SYNTHESISE.need(fits, f"FrontEnd.synthesise gave {_shape(wave)} of {wave.dtype}.")
        _SYNTHESISE.need(bool(torch.isfinite(wave).all()), "FrontEnd.synthesise gave values that are not finite.")
        found = wave.shape[-1]
        right = found == length if length is not None else found % front.hop_length == 0
        _SYNTHESISE.need(right, f"With length={length} and hops of {front.hop_length} there were {found} samples.")


def check_masks(subject: Subject) -> None:
    """Ranges of estimates, for silence, a quiet and a loud mixture."""
    mixture = subject.mixture()
    for level, gain in {"silence": 0.0, "a quiet mixture": 1e-3, "a mixture": 1.0, "a loud mixture": 10.0}.items():
        with _MASKS.during(f"Estimating {level}"):
            estimate = subject.estimate(mixture=gain * mixture)
        values = estimate.values
        _MASKS.need(bool(torch.isfinite(values).all()), f"Of {level} the estimate has values that are not finite.")
        low, high = float(values.min()), float(values.max())
        most = subject.largest_mask if estimate.kind == "mask" else float("inf")
        kept = estimate.kind == "features" or (low >= 0 and high <= most + 1e-6)
        _MASKS.need(kept, f"Of {level} the {estimate.kind} has values from {low:.4g} to {high:.4g}.")


def check_plans(subject: Subject) -> None:
    """Plans against built parts, and declared sites against those that a forward pass comes to."""
    model = subject.model
    given = {slot: part for slot, part in subject.parts.items() if isinstance(part, PartConfig)}
    if (part := given.get("encoder")) is not None:
        plan = _planned("encoder", part)
        _compare("encoder", part, {n: (getattr(plan, n), getattr(model.encoder, n)) for n in ("reads", "optional")})
        _compare("encoder", part, {"gives": (dict(plan.gives), dict(model.encoder.gives))})
    if (part := given.get("separator")) is not None:
        plan = _planned("separator", part)
        driven = isinstance(model.separator, DrivenSeparator) and model.separator.driven
        sites = (list(plan.sites.items()), list(model.separator.sites.items()))
        _compare("separator", part, {"sites": sites, "driven": (plan.driven, driven)})
    conditioner: Any = model.conditioner
    if (part := given.get("conditioner")) is not None:
        plan = _planned("conditioner", part, views=model.encoder.gives, sites=model.separator.sites)
        _compare("conditioner", part, {"widths": (dict(plan.widths), dict(conditioner.widths()))})
        for name in ("wants", "acts_at"):  # a plan may have more, for these views and sites
            least, planned = getattr(conditioner, name), getattr(plan, name)
            kept = least <= planned
            _PLANS.need(kept, f"The plan of the conditioner {part.name!r} has {name} {planned}, not all of {least}.")
    _check_sites(subject, dict(conditioner.widths()))


def _check_sites(subject: Subject, widths: dict[str, int]) -> None:
    watched = _forward_watched(subject)
    sites, visited = subject.model.separator.sites, [name for name, _, _ in watched]
    _PLANS.need(
        visited == list(sites),
        f"The separator declares the sites {', '.join(sites)} and came to {', '.join(visited) or 'none'}.",
    )
    for name, arrived, left in watched:
        _PLANS.need(
            arrived == sites[name].channels, f"At {name} {arrived} channels arrived, not {sites[name].channels}."
        )
        wanted = widths.get(name, arrived)
        _PLANS.need(left == wanted, f"{left} channels left {name} and the conditioner's widths say {wanted}.")


def _forward_watched(subject: Subject) -> list[tuple[str, int, int]]:
    """Each site a forward pass comes to, in order, with the channels that arrive and leave."""
    model = subject.model
    spectrum = subject.spectrum()
    with _PLANS.during("A forward pass through the sites"):
        watched = _Watched(model.conditioner.bind(model.encode(subject.cues())))
        if model.driver is not None and isinstance(model.separator, DrivenSeparator):
            noisy = torch.zeros(2 * len(spectrum.features), *spectrum.features.shape[1:])
            model.separator.bind(spectrum, watched)(noisy, torch.full((1,), 0.5))
        else:
            model.separator(spectrum, watched)
    return watched.seen


class _Watched(Bound):
    """A bound conditioner that notes what comes to it."""

    def __init__(self, inner: Bound) -> None:
        self.inner, self.sources = inner, inner.sources
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, site: str, features: Tensor) -> Tensor:
        left = self.inner(site, features)
        if site not in [name for name, _, _ in self.seen]:
            self.seen.append((site, features.shape[1], left.shape[1]))
        return left


def _planned(kind: str, part: PartConfig, **context: Any) -> Any:
    with _PLANS.during(f"The plan of the {kind} {part.name!r}"):
        return registry().part(kind, part.name).plan(**context, **part.config)


def _compare(kind: str, part: PartConfig, pairs: dict[str, tuple[Any, Any]]) -> None:
    for name, (planned, built) in pairs.items():
        _PLANS.need(
            planned == built, f"The plan of the {kind} {part.name!r} has the {name} {planned!r}, built {built!r}."
        )


def _shape(value: Tensor | nn.Module | Spectrum | None) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
