"""The GRPO run itself: trainer, samples, progress, interrupts, resume."""
