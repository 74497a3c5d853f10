"""The parity kit's measure: relative RMS error rms(a - b) / rms(b)."""

from __future__ import annotations

import os

import numpy as np

ON_DEVICE = bool(os.environ.get("SDLTX_TEST_DEVICE"))


def relative_rms(actual: np.ndarray, golden: np.ndarray) -> float:
    a, b = np.asarray(actual, np.float64), np.asarray(golden, np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean(b**2)))


def assert_close(
    name: str, actual: np.ndarray, golden: np.ndarray, tolerance: float = 1e-4, on_device: float = 1e-2
) -> None:
    """Fails with the figure unless both have one shape, all values are finite and the error is within ``tolerance``.

    ``on_device`` counts in runs on a GPU, which multiplies in half precision and sums in its own order: .ci/vulkan.
    """
    assert actual.shape == golden.shape, f"{name}: shape {actual.shape}, golden {golden.shape}"
    assert np.isfinite(actual).all(), f"{name}: not finite"
    error = relative_rms(actual, golden)
    print(f"{name}: relative RMS {error:.2e}")
    tolerance = max(tolerance, on_device) if ON_DEVICE else tolerance
    assert error <= tolerance, f"{name}: relative RMS {error:.3e} above {tolerance:.0e}"
