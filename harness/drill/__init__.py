"""Put known faults back and show which stage catches each."""

from harness.drill.attempt import Setting
from harness.drill.catalogue import FAULTS, FORMATS
from harness.drill.fault import Fault
from harness.drill.result import DrillReport
from harness.drill.run import drill
from harness.drill.table import text
from harness.drill.tamper import TamperReport, tamper, text_of_ways
from harness.drill.way import Way
from harness.drill.ways import WAYS

__all__ = [
    "FAULTS",
    "FORMATS",
    "WAYS",
    "DrillReport",
    "Fault",
    "Setting",
    "TamperReport",
    "Way",
    "drill",
    "tamper",
    "text",
    "text_of_ways",
]
