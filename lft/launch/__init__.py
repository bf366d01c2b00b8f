"""The launch tower: start ranks, watch them, say what happened. Never imports torch."""
