"""A nightly is disturbed: killed at random times, on a full disk, twice at once, a clock set back.

python -m scripts.nightly_faults                 # say what was lost or left; exit 1 if anything was
python -m scripts.nightly_faults --record        # and add its figures to the ledger
python -m scripts.nightly_faults --ray URL       # workers of a Ray cluster here are killed

Nightlies, ledgers, processes, keepers, ports and disks are real. A cell (`cell`) is harness's own
run with a server and an evaluator of a few lines (`served`) in the place of an engine. The disk is
a tmpfs that only this process sees, which takes root; the clock is that of the nightly's process.
"""
