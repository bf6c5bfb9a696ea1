"""A policy on disk and in memory: its weights, its sizes, its checkpoints, how it is loaded."""
