"""The Countdown numbers game: puzzles, solver, exact arithmetic, and how a thinking text is read."""
