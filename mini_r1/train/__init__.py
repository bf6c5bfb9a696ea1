"""The run itself, GRPO or a cold start: trainers, samples, progress, interrupts, resume."""
