"""Examining a machine before it is trusted with a run: facts are gathered, and judged by pure functions."""
