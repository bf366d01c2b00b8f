"""Configurations of other projects, translated: a table for each, and one engine that applies them."""
