"""Words in, words out: Click commands and Rich output."""
