"""Build, audit and prove images of llama-server from TurboQuant forks of llama.cpp."""

__version__ = "0.1.0"
