"""Every key of a run: read, checked, explained."""
