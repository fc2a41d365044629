"""What an image weighs on its way to a registry: the sum of its layers in gzip.

A layer's digest stands for its bytes, so its weight is kept: a rebuild changes two layers of ten.
"""

import contextlib
import json
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import FileLock

from builder import image_stream, paths
from builder.replace_files import write_atomically
