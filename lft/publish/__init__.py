"""The finished run: report, model card, upload. No torch."""
