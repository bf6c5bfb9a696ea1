"""A run and its folder: what it is made of, what it holds out, and what it leaves behind."""
