"""The labels of images and containers."""

LABEL = "io.github.turboquant-builder"
"""The prefix of our own image labels."""

_OCI = "org.opencontainers.image"

REVISION = f"{_OCI}.revision"

SOURCE = f"{_OCI}.source"

VERSION = f"{_OCI}.version"

CREATED = f"{_OCI}.created"

TITLE = f"{_OCI}.title"

BASE_NAME = f"{_OCI}.base.name"

BASE_DIGEST = f"{_OCI}.base.digest"

VARIANT = f"{LABEL}.variant"

KV_TYPES = f"{LABEL}.kv-types"

CUDA = f"{LABEL}.cuda"

ARCHITECTURES = f"{LABEL}.cuda-architectures"

DRIVER = f"{LABEL}.lowest-driver"

STARTS = f"{LABEL}.starts-without-driver"

CUBLAS = f"{LABEL}.cublas"

ORIGIN = f"{LABEL}.base-origin"

CLAIMED = f"{LABEL}.commit-claimed"

RECIPE = f"{LABEL}.dockerfile-sha256"

BUILT_AS = f"{LABEL}.built-as"

LEFT_OUT = f"{LABEL}.left-out"
"""What the pins name and the commit lacks, in the words of builder.pins.parts, with commas."""

PROVEN = f"{LABEL}.proven"

NOT_PROVEN = f"{LABEL}.not-proven"

GPU = f"{LABEL}.gpu"

OF_PUBLISH = (BUILT_AS, PROVEN, NOT_PROVEN, GPU)
"""What `builder publish` adds: the ID under which the image was built, what it had passed and what
not (both in record.Proof's words, with commas), and the GPU that it passed that on, or "none"."""

PROFILE = f"{LABEL}.profile"
