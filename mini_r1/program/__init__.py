"""What every program of this project does: start quietly, explain errors in words, hide tokens."""
