"""The ground: settings, run directory, errors, rank, hardware, files. Imports no torch and nothing above it."""
