"""Say where what a run ended with comes from: calibration, quantization, export, loader, kernel."""

from harness.localizing.localize import LOCALIZATION_FILE, Machine, localize

__all__ = ["LOCALIZATION_FILE", "Machine", "localize"]
