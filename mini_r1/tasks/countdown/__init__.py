"""The Countdown numbers game: puzzles, solver, exact arithmetic, and how the thinking is read."""
