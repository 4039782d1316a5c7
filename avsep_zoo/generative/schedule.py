"""The variance schedule of a diffusion process (Ho et al., NeurIPS 2020), sigmoid (Jabri et al., ICML 2023)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["DiffusionSchedule"]


class DiffusionSchedule:
    """What every step k = 0 .. ``timesteps`` - 1 of the diffusion needs, computed in float64 and kept as float32.

    The vectors are constants: they follow no module to another precision and are in no state dict.
    ``vectors["signal"][k]`` is abar_k, the share of the data's power that is left at step k.

    Args:
        timesteps: K, at least 1.
        start, end: ends of the sigmoid.
        tau: its temperature.

    Raises:
        ValueError: a setting is out of its range, or together they leave steps without noise or without numbers.
    """

    def __init__(self, *, timesteps: int = 1000, start: float = 0.0, end: float = 3.0, tau: float = 1.0) -> None:
        if not isinstance(timesteps, int) or timesteps < 1:
            raise ValueError(f"timesteps is {timesteps!r}; give a whole number from 1 on.")
        if not start < end or not tau > 0:
            raise ValueError(f"The sigmoid goes from {start} to {end} with tau {tau}; give start < end and tau > 0.")
        self.timesteps = timesteps
        with np.errstate(all="ignore"):
            beta = _sigmoid_betas(timesteps, start, end, tau)
            signal = np.cumprod(1.0 - beta)
            before = np.concatenate(([1.0], signal[:-1]))
            variance = beta * (1.0 - before) / (1.0 - signal)
            vectors = {
                "beta": beta,
                "signal": signal,
                "signal_before": before,
                "root_signal": np.sqrt(signal),
                "root_noise": np.sqrt(1.0 - signal),
                "log_noise": np.log(1.0 - signal),
                "root_inverse_signal": np.sqrt(1.0 / signal),
                "root_inverse_signal_less_one": np.sqrt(1.0 / signal - 1.0),
                "posterior_variance": variance,
                "posterior_log_variance": np.log(np.maximum(variance, 1e-20)),
                "posterior_clean": beta * np.sqrt(before) / (1.0 - signal),
                "posterior_noisy": (1.0 - before) * np.sqrt(1.0 - beta) / (1.0 - signal),
            }
            stored = {name: vector.astype(np.float32) for name, vector in vectors.items()}
        if not all(np.isfinite(vector).all() for vector in stored.values()):
            raise ValueError(
                f"The sigmoid from {start} to {end} with tau {tau} is no schedule of {timesteps} steps; take values "
                "closer to 0, 3 and 1."
            )
        self._signal = signal
        self.vectors = {name: torch.from_numpy(vector) for name, vector in stored.items()}

    def at(self, name: str, step: Tensor) -> Tensor:
        """Entries (B, 1, 1, 1) of a vector at steps (B,), where these are."""
        return self.vectors[name].to(step.device)[step][:, None, None, None]

    def power(self, step: int) -> float:
        """Share of the data's power that is left at a step, in double precision; 1 at -1."""
        return float(self._signal[step]) if step >= 0 else 1.0

    def half_log_snr(self, step: int) -> float:
        """Half the logarithm of the signal-to-noise ratio at a step from 0 on."""
        signal = self.power(step)
        return 0.5 * math.log(signal / (1.0 - signal))

    def noisy(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Data at step k: ``sqrt(abar) clean + sqrt(1 - abar) noise``."""
        return self.at("root_signal", step) * clean + self.at("root_noise", step) * noise

    def clean_from_noise(self, noisy: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Data from its noise: ``noisy / sqrt(abar) - sqrt(1 / abar - 1) noise``."""
        return self.at("root_inverse_signal", step) * noisy - self.at("root_inverse_signal_less_one", step) * noise

    def noise_from_clean(self, noisy: Tensor, clean: Tensor, step: Tensor) -> Tensor:
        """Noise from the data."""
        lifted = self.at("root_inverse_signal", step) * noisy - clean
        return lifted / self.at("root_inverse_signal_less_one", step)

    def velocity(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """``v = sqrt(abar) noise - sqrt(1 - abar) clean`` (Salimans and Ho, ICLR 2022)."""
        return self.at("root_signal", step) * noise - self.at("root_noise", step) * clean

    def clean_from_velocity(self, noisy: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
        """Data from v: ``sqrt(abar) noisy - sqrt(1 - abar) v``."""
        return self.at("root_signal", step) * noisy - self.at("root_noise", step) * velocity

    def posterior_mean(self, clean: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """Mean of step k - 1 given step k and the data."""
        return self.at("posterior_clean", step) * clean + self.at("posterior_noisy", step) * noisy

    def times(self, steps: int) -> list[int]:
        """Steps that a sampler of ``steps`` steps visits, from the noisiest on; -1, the data, is the last."""
        grid = torch.linspace(-1, self.timesteps - 1, steps + 1, dtype=torch.float32, device="cpu")
        times: list[int] = grid.int().tolist()
        return times[::-1]


def _sigmoid_betas(timesteps: int, start: float, end: float, tau: float) -> np.ndarray:
    u = np.arange(timesteps + 1) / timesteps
    low, high = (np.float64(np.float32(1 / (1 + np.exp(-v / tau)))) for v in (start, end))
    span = np.float64(np.float32(high - low))
    f = (high - 1 / (1 + np.exp(-(u * (end - start) + start) / tau))) / span
    f = f / f[0]
    return np.clip(1.0 - f[1:] / f[:-1], 0.0, 0.999)
