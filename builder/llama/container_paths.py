"""Where a served container has its files, and where its server listens."""

from builder.llama import flags

MODEL = "/models/model.gguf"
"""Where the model lies inside the container."""

DRAFT = flags.DRAFT
"""Where a draft model lies beside it."""

SERVER_PORT = 8080
"""What an image's server listens on unless it is told otherwise."""

LOOPBACK = "127.0.0.1"
