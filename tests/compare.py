"""The parity kit's measure: relative RMS error rms(a - b) / rms(b)."""

from __future__ import annotations

import os

import numpy as np

# GPUs multiply in half precision and sum in their own order: see .ci/vulkan.
DEVICE_TOLERANCE = 2e-2 if os.environ.get("SDLTX_TEST_DEVICE") else 0.0


def relative_rms(actual: np.ndarray, golden: np.ndarray) -> float:
    a, b = np.asarray(actual, np.float64), np.asarray(golden, np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean(b**2)))


def assert_close(name: str, actual: np.ndarray, golden: np.ndarray, tolerance: float = 1e-4) -> None:
    """Fails with the figure unless both have one shape, all values are finite and the error is within ``tolerance``."""
    assert actual.shape == golden.shape, f"{name}: shape {actual.shape}, golden {golden.shape}"
    assert np.isfinite(actual).all(), f"{name}: not finite"
    error = relative_rms(actual, golden)
    print(f"{name}: relative RMS {error:.2e}")
    tolerance = max(tolerance, DEVICE_TOLERANCE)
    assert error <= tolerance, f"{name}: relative RMS {error:.3e} above {tolerance:.0e}"
