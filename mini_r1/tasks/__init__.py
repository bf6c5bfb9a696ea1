"""What is learned: each task knows its rows, how to ask for an answer and how to judge one."""
