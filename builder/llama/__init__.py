"""What is known of llama-server: flags, HTTP, readiness, messages."""
