"""Configurations of other projects, translated: a table for each project, and one engine that applies them. No I/O but reading."""
