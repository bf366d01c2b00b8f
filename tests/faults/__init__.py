"""Real runs with a rank, or their launcher, made to fail; see faults.py."""
