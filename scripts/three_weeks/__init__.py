"""Three weeks of a nightly with a regression, a drift, a sick host and a flaky cell planted.

python -m scripts.three_weeks             # print the table; exit 1 if one is missed, or more told
python -m scripts.three_weeks --record    # and add its summary to the ledger

Answers are simulated. Everything else is what a nightly does: run directories are written, judged
and read by harness, compared with the cell's anchor, kept in the ledger of the host that ran them,
merged, alarmed and run again where an alarm asks for it.
"""
