"""What is asked of a running llama-server: one probe a function, one finding an answer."""
