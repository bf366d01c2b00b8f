"""The training tower: what one rank runs. Knows nothing of plans, launchers or the command line."""
