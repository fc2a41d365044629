"""GGUF files: shapes, memory, the scripted model."""
