"""Put known faults back and show which stage catches each."""

from harness.drill.attempt import Setting
from harness.drill.catalogue import FAULTS, FORMATS
from harness.drill.fault import Fault
from harness.drill.result import DrillReport
from harness.drill.run import drill
from harness.drill.table import text

__all__ = [
    "FAULTS",
    "FORMATS",
    "DrillReport",
    "Fault",
    "Setting",
    "drill",
    "text",
]
