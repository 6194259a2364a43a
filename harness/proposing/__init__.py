"""Propose a suite from a baseline that is measured once."""

from harness.proposing.propose import NewSuite, Proposal, propose

__all__ = ["NewSuite", "Proposal", "propose"]
