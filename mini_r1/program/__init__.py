"""What every program of this project does: start quietly, say errors in words, hide tokens."""
