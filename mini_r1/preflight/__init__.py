"""Everything that can be known before a run starts; `train` does not know of it."""
