"""Put known faults back and show which stage catches each."""

from harness.drill.attempt import DrillSetting
from harness.drill.catalogue import FAULTS, FORMATS
from harness.drill.fault import Fault
from harness.drill.result import DrillReport
from harness.drill.run import drill
from harness.drill.table import text
from harness.drill.tamper import ATTACKS, TamperReport, tamper, text_of_attacks

__all__ = [
    "ATTACKS",
    "FAULTS",
    "FORMATS",
    "DrillReport",
    "DrillSetting",
    "Fault",
    "TamperReport",
    "drill",
    "tamper",
    "text",
    "text_of_attacks",
]
