"""The Hugging Face Hub: pushing a run, and whether that will work."""
