"""Mini-R1: reproduce DeepSeek-R1's "aha moment" with GRPO on the Countdown numbers game."""
