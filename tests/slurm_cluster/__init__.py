"""A real SLURM for tests, and what runs on it; see cluster.py."""
