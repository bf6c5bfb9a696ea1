"""Where completions come from: the vLLM server of a run, or this process."""
