"""Deciding: pure functions from settings and machine to a plan. No I/O, no torch."""
