"""Energy that this process uses, as codecarbon estimates it, without a network and without its files."""

from __future__ import annotations

import logging
import weakref

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install

MEASURE_S = 15.0
"""Seconds between measurements of power, in a thread of codecarbon's."""


class EnergyMeter:
    """Counts from when it is made until it is no longer used.

    On a machine that tells its power (RAPL, a GPU) this is measured and shared out by use; on others, virtual ones
    among them, it is estimated from the load and the model of the processor.

    Raises:
        ConfigError: If codecarbon is not installed.
    """

    def __init__(self) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.output_methods.base_output import BaseOutput
        except ImportError:
            raise ConfigError(f"--energy needs codecarbon; {how_to_install('energy')}") from None

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its own option comes too late for its first lines

        class Latest(BaseOutput):
            """Where codecarbon writes: here, and nowhere else."""

            kwh = 0.0

            def out(self, total: object, delta: object) -> None:
                del delta
                self.kwh = float(total.energy_consumed)  # type: ignore[attr-defined]

        self._latest = Latest()
        self._tracker = OfflineEmissionsTracker(
            output_methods=[],
            output_handlers=[self._latest],
            emissions_endpoint=None,
            force_carbon_intensity_g_co2e_kwh=0.0,  # so that it needs no country: emissions are not asked for
            tracking_mode="process",
            measure_power_secs=MEASURE_S,
            allow_multiple_runs=True,
            log_level="critical",
        )
        self._tracker.start()
        weakref.finalize(self, self._tracker.stop)

    @property
    def kwh(self) -> float:
        """Energy so far, in kWh."""
        self._tracker.flush()
        kwh: float = self._latest.kwh
        return kwh
