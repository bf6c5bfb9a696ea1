"""The parts of `benchmarks/gpu.py`: what is measured, how, and the page of results."""
