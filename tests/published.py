"""What stands behind a published image in tests: a receipt, contents, reports. Made up."""

from dataclasses import replace
from typing import Any

from builder.image_contents import Contents, HashedFile, Package
from builder.model import BaseImage, Receipt

COMMIT = "c" * 40
URL = "https://github.com/Somebody/llama-fork.git"
DIGEST = "sha256:" + "d" * 64
REPOSITORY = "ghcr.io/me/turboquant"

CONTENTS = Contents(
    packages=(
        Package("libstdc++6", "14.2.0-19+deb13u1", "amd64"),
        Package("tzdata", "2026a-0+deb13u1", "all"),
    ),
    files=(
        HashedFile("/opt/llama/libcublas.so.12", 9, "1" * 40, "1" * 64),
        HashedFile("/opt/llama/libllama.so.0.0.77", 5, "2" * 40, "2" * 64),
        HashedFile("/opt/llama/llama-server", 7, "3" * 40, "3" * 64),
    ),
    distribution="debian",
)


def a_receipt(**changes: Any) -> Receipt:
    made = Receipt(
        variant="tiny",
        fork="tiny",
        ref="master",
        commit=COMMIT,
        commit_claimed=False,
        source=URL,
        build_number=77,
        image="turboquant:tiny",
        image_id="sha256:" + "e" * 64,
        size_bytes=150_000_000,
        compressed_bytes=60_000_000,
        bases=[
            BaseImage("devel", "docker.io/nvidia/cuda:12@sha256:aa", "sha256:" + "a" * 64, "hub"),
            BaseImage("runtime", "turboquant-base:x", "sha256:" + "b" * 64, "bootstrap"),
        ],
        dockerfile_sha256="f" * 64,
        created="2026-11-20T10:20:30.123456Z",
        duration_s=90.0,
        stages=[],
        ccache=None,
        log="/home/me/build.log",
    )
    return replace(made, **changes)
