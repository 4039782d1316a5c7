"""The variance schedule of a diffusion process (Ho et al., NeurIPS 2020), sigmoid (Jabri et al., ICML 2023)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["DiffusionSchedule"]


class DiffusionSchedule(nn.Module):
    """What every step k = 0 .. ``timesteps`` - 1 of the diffusion needs, computed in float64 and kept as float32.

    ``signal[k]`` is abar_k, the share of the data's power that is left at step k.

    Args:
        timesteps: K.
        start, end: ends of the sigmoid.
        tau: its temperature.
    """

    signal: Tensor
    signal_before: Tensor

    def __init__(self, *, timesteps: int = 1000, start: float = 0.0, end: float = 3.0, tau: float = 1.0) -> None:
        super().__init__()
        self.timesteps = timesteps
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
        for name, vector in vectors.items():
            self.register_buffer(name, torch.from_numpy(vector.astype(np.float32)), persistent=False)

    def at(self, name: str, step: Tensor) -> Tensor:
        """Entries (B, 1, 1, 1) of a vector at steps (B,)."""
        vector: Tensor = getattr(self, name)
        return vector[step.to(vector.device)][:, None, None, None]

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
        return [int(t) for t in np.linspace(-1, self.timesteps - 1, steps + 1)][::-1]


def _sigmoid_betas(timesteps: int, start: float, end: float, tau: float) -> np.ndarray:
    u = np.arange(timesteps + 1) / timesteps
    low, high = (np.float64(np.float32(1 / (1 + math.exp(-v / tau)))) for v in (start, end))
    span = np.float64(np.float32(high - low))
    f = (high - 1 / (1 + np.exp(-(u * (end - start) + start) / tau))) / span
    f = f / f[0]
    return np.clip(1.0 - f[1:] / f[:-1], 0.0, 0.999)
