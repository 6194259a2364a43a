"""The store through which processes meet is for this machine alone."""

import subprocess
import sys

PROGRAM = """
import psutil, sys
from datetime import timedelta
from harness.plugin.harness_vllm.listening import listen_here_alone
import torch.distributed as distributed

if sys.argv[1] == "ours":
    listen_here_alone()
    listen_here_alone()
distributed.init_process_group(
    "gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1, timeout=timedelta(seconds=60)
)
found = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"}
print(sorted(found & {"::", "0.0.0.0"}), "127.0.0.1" in found)
distributed.destroy_process_group()
"""


def listening(whose: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, whose], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_store_of_this_machines_address_listens_there_alone() -> None:
    assert listening("ours") == "[] True\n"


def test_torchs_own_listens_everywhere() -> None:
    """Where this fails torch has mended it, and ours is of no use any more."""
    assert listening("torch's") != "[] True\n"
