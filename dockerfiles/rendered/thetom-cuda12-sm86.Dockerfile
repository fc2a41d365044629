# thetom-cuda12-sm86: rendered by `builder render` from dockerfiles/*.j2 and pins.toml. Do not edit.
# Usable alone: docker build -f dockerfiles/rendered/thetom-cuda12-sm86.Dockerfile .
ARG DEVEL_IMAGE=docker.io/nvidia/cuda:12.6.3-devel-ubuntu22.04@sha256:d49bb8a4ff97fb5fe477947a3f02aa8c0a53eae77e11f00ec28618a0bcaa2ad1
ARG RUNTIME_IMAGE=docker.io/library/debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
ARG SOURCE_URL=https://github.com/TheTom/llama-cpp-turboquant.git
ARG COMMIT=69d8e4be47243e83b3d0d71e932bc7aa61c644dc
ARG BUILD_NUMBER=9079
# The commit's date, so that the same pin gives the same labels on any day.
ARG CREATED=2026-05-04T15:37:40Z

# One commit, no history. `--build-context source=DIR` replaces this stage: nothing is fetched then.
FROM scratch AS source
ARG SOURCE_URL
ARG COMMIT
# hadolint ignore=DL3020
ADD ${SOURCE_URL:?SOURCE_URL_is_a_required_build_argument}#${COMMIT:?COMMIT_is_a_required_build_argument} /

FROM ${DEVEL_IMAGE} AS devel
# No versions: the distribution's security updates are wanted; the base is pinned.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=devel-apt-sources,target=/etc/apt/sources.list \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ccache \
      cmake \
      g++ \
      libssl-dev \
      ninja-build \
 && rm -rf /var/lib/apt/lists/*
# libcuda.so.1 belongs to the driver, which no build machine needs to have. The linker finds the
# toolkit's stub by three things together, and none of them reaches the runtime stage:
#  1. the stub under the soname that libraries ask for;
RUN ln -sf libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1
#  2. the folder where `-lcuda` looks;
ENV LIBRARY_PATH=/usr/local/cuda/lib64/stubs
#  3. the folder where libraries' own needs are looked up when an executable is linked.
ENV LDFLAGS=-Wl,-rpath-link,/usr/local/cuda/lib64/stubs

# Asked before anything is compiled: a devel image given with --set may hold another toolkit.
RUN --network=none \
    nvcc -ccbin g++ \
      -gencode arch=compute_86,code=sm_86 \
      -x cu -c /dev/null -o /tmp/nvcc.o >/tmp/nvcc.log 2>&1 \
 || { echo "error: nvcc of this devel image does not compile for 86 with g++:" \
      "$(sed -nE '/error|fatal|nvcc/ { s/! The nvcc flag.*//; p; q }' /tmp/nvcc.log);" \
      "take another devel image (--base, --set devel=IMAGE), or change the variant's architectures" \
      "or the base's compiler in pins.toml" >&2; exit 1; } \
 && rm /tmp/nvcc.o /tmp/nvcc.log

FROM devel AS init
COPY <<'EOF' /init.c
/* PID 1: starts the server named in its arguments, hands signals on, ends with its exit code.
 *
 * llama-server alone does not end when it is told to: before the model is loaded it has no handler
 * for SIGTERM, and the kernel drops a signal that PID 1 does not handle; while it streams, its
 * shutdown waits for a client that is in no hurry. So a stop that is not over after PATIENCE
 * seconds is ended with SIGKILL, and is called what it was: 143, ended by SIGTERM.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE = 3, CANNOT_START = 127, BY_SIGNAL = 128 };

static int exit_code(int status, int asked)
{
    /* The server is linked with libcuda.so.1, and the loader's words do not say where that is. */
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_START)
        fputs("init: this image starts only beside an NVIDIA driver, 525.60.13 or newer, "
              "whose libcuda.so.1 is mounted into it: docker run --gpus all\n", stderr);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return BY_SIGNAL + (WTERMSIG(status) == SIGKILL && asked ? asked : WTERMSIG(status));
}

/* How the server ended, if it has; other children are orphans that fell to PID 1. */
static int reap(pid_t server, int *status)
{
    int found;
    for (pid_t ended; (ended = waitpid(-1, &found, WNOHANG)) > 0;)
        if (ended == server) {
            *status = found;
            return 1;
        }
    return 0;
}

int main(int count, char **arguments)
{
    if (count < 2) {
        fputs("init: no program named\n", stderr);
        return CANNOT_START;
    }
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t server = fork();
    if (server == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        execv(arguments[1], arguments + 1);
    }
    if (server <= 0) {
        perror(arguments[1]);
        return CANNOT_START;
    }
    for (int asked = 0, status, number; sigwait(&all, &number) == 0;) {
        if (number == SIGCHLD) {
            if (reap(server, &status))
                return exit_code(status, asked);
        } else if (number == SIGALRM) {
            kill(server, SIGKILL);
        } else {
            kill(server, number);
            if (!asked && (number == SIGTERM || number == SIGINT)) {
                asked = number;
                alarm(PATIENCE);
            }
        }
    }
}
EOF

RUN --network=none gcc -O2 -Wall -Wextra -Werror -s -o /init /init.c

FROM devel AS build
ARG COMMIT
ARG BUILD_NUMBER
# Passed by `builder build --no-cache`: everything is compiled anew, and ccache keeps the results.
ARG CCACHE_RECACHE
# What is compiled can write into it: one for each fork and commit. `builder build` passes its own.
ARG CCACHE_ID=turboquant-ccache-thetom-alone-${COMMIT}
# Passed where memory does not allow a compiler on every core.
ARG JOBS
# Passed by `builder audit --reproduce`: ccache neither answers nor keeps anything.
ARG CCACHE_DISABLE
# The commit's date, which compilers take for __DATE__. Not in the stages above: their layers, the
# packages, serve every commit.
ARG SOURCE_DATE_EPOCH
# [n/m] in the log is how progress is read. No ccache.conf of the mount is read: one can name a
# program to run in place of the compiler.
ENV NINJA_STATUS="[%f/%t] " \
    CCACHE_DIR=/ccache \
    CCACHE_CONFIGPATH=/dev/null \
    CCACHE_MAXSIZE=5G \
    CCACHE_STATSLOG=/tmp/ccache.stats
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Configured without SOURCE_DATE_EPOCH: ggml's CMakeLists.txt would leave out SSE 4.2, AVX and the
# like by default.
# No network: what is compiled is the commit and the packages above, nothing fetched on the way.
RUN --network=none \
    --mount=type=bind,from=source,target=/src \
    --mount=type=cache,id=${CCACHE_ID},target=/ccache \
    env -u SOURCE_DATE_EPOCH cmake -S /src -B /build -G Ninja \
      "-DBUILD_SHARED_LIBS=ON" \
      "-DCMAKE_BUILD_TYPE=Release" \
      "-DCMAKE_CUDA_ARCHITECTURES=86-real" \
      "-DCMAKE_CUDA_COMPILER_LAUNCHER=ccache" \
      "-DCMAKE_CUDA_FLAGS=-Xfatbin=-compress-all" \
      "-DCMAKE_CUDA_HOST_COMPILER=g++" \
      "-DCMAKE_CXX_COMPILER=g++" \
      "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache" \
      "-DCMAKE_C_COMPILER=gcc" \
      "-DCMAKE_C_COMPILER_LAUNCHER=ccache" \
      "-DCMAKE_SKIP_RPATH=ON" \
      "-DGGML_BACKEND_DL=OFF" \
      "-DGGML_CCACHE=OFF" \
      "-DGGML_CPU_ALL_VARIANTS=OFF" \
      "-DGGML_CUDA=ON" \
      "-DGGML_CUDA_FA_ALL_QUANTS=ON" \
      "-DGGML_CUDA_NCCL=OFF" \
      "-DGGML_NATIVE=OFF" \
      "-DLLAMA_BUILD_EXAMPLES=OFF" \
      "-DLLAMA_BUILD_TESTS=OFF" \
      "-DLLAMA_BUILD_UI=OFF" \
      "-DLLAMA_BUILD_WEBUI=OFF" \
      "-DLLAMA_OPENSSL=ON" \
      "-DLLAMA_USE_PREBUILT_UI=OFF" \
      "-DLLAMA_BUILD_NUMBER=${BUILD_NUMBER}" \
      "-DLLAMA_BUILD_COMMIT=${COMMIT:0:9}" \
 && cmake --build /build --target llama-server ${JOBS:+--parallel ${JOBS}} \
 && { grep -v '^#' "${CCACHE_STATSLOG}" || true; } | sort | uniq -c | sed 's/^/ccache-stats /'
# Every library with its soname link. Three folders, three layers: what changes least comes first.
RUN --network=none \
    mkdir -p /out/toolkit /out/backends /out/server \
 && find /build/bin -name 'lib*.so*' -type f -exec strip --strip-unneeded {} + \
 && strip --strip-unneeded /build/bin/llama-server \
 && find /build/bin \( -name 'libggml-cuda.so*' -o -name 'libggml-cpu*.so*' \) -exec mv -t /out/backends {} + \
 && find /build/bin \( -name 'lib*.so*' -o -name llama-server \) -exec mv -t /out/server {} +
# Of the toolkit only what our own files need. ldd follows the needs of needs; the backends that are
# opened at run time count as files of their own. What cuBLAS opens by name, seen in the dlopen calls
# of 12.4.5, 12.6.4 and 12.8.4: libcuda.so.1, which the container toolkit mounts, and from 12.8 on
# libnvrtc, which opens libnvrtc-builtins.
RUN --network=none \
    find /out -type f \( -name '*.so*' -o -name llama-server \) -exec ldd {} + \
  | awk '$1 ~ /^lib(cu|nv)/ && $1 !~ /^libcuda\.so/ { print $3 ~ /^\// ? $3 : $1 }' | sort -u \
  | xargs -r cp -Lt /out/toolkit \
 && for opened in libnvrtc libnvrtc-builtins; do \
      { grep -aohE "${opened}\.so(\.[0-9]+)+" /out/toolkit/* || true; } | sort -u \
    | while read -r name; do \
        find /usr -name "${name}" -exec cp -Lt /out/toolkit {} \; -quit; \
        ls "/out/toolkit/${name}" || exit 1; \
      done \
   || exit 1; \
    done

FROM ${RUNTIME_IMAGE} AS runtime
# OpenMP for the CPU backend; TLS and its roots for `-hf` downloads.
# No versions: the distribution's security updates are wanted; the base is pinned.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=runtime-apt-sources,target=/etc/apt/sources.list \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates \
      libgomp1 \
      libssl3t64 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/ldconfig /var/log/apt /var/log/dpkg.log \
 && SOURCE_DATE_EPOCH=0 useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin llama \
 && install -d -o llama -g llama /models /home/llama/.cache \
 && ln -s /opt/llama/llama-server /usr/local/bin/llama-server \
 && echo /opt/llama >/etc/ld.so.conf.d/llama.conf
# Healthy follows the port in use: --port on the server's command line, else LLAMA_ARG_PORT. bash
# speaks TCP itself, so the image needs no curl. podman ends no check that hangs, so it ends itself.
COPY --chmod=755 <<'EOF' /usr/local/bin/healthcheck
#!/bin/bash
port=$LLAMA_ARG_PORT
mapfile -d '' -t args </proc/1/cmdline
for i in "${!args[@]}"; do
  [[ ${args[i]} == --port ]] && port=${args[i + 1]}
done
exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET /health HTTP/1.0\r\n\r\n' >&3
read -r -t 4 _ status _ <&3
[[ $status == 200 ]]
EOF

COPY --from=init /init /opt/llama/
COPY --from=build /out/toolkit/ /opt/llama/
COPY --from=build /out/backends/ /opt/llama/
COPY --from=build /out/server/ /opt/llama/
# The loader's cache, so that no file needs a build path in a RUNPATH.
RUN ldconfig && rm -r /var/cache/ldconfig

ARG SOURCE_URL
ARG COMMIT
ARG BUILD_NUMBER
ARG CREATED
LABEL org.opencontainers.image.title="llama-server, thetom-cuda12-sm86" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.version="b${BUILD_NUMBER}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.base.digest="sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f" \
      io.github.turboquant-builder.cuda="12.6.3" \
      io.github.turboquant-builder.cuda-architectures="86" \
      io.github.turboquant-builder.lowest-driver="525.60.13" \
      io.github.turboquant-builder.starts-without-driver="false" \
      io.github.turboquant-builder.cublas="shared" \
      io.github.turboquant-builder.variant="thetom-cuda12-sm86" \
      io.github.turboquant-builder.kv-types="turbo4,turbo3,turbo2"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A server bound to 127.0.0.1 inside a container is reached by nobody; and llama-server announces
# that its default port will change from 8080.
ENV LLAMA_ARG_HOST=0.0.0.0
ENV LLAMA_ARG_PORT=8080
USER 10001:10001
WORKDIR /home/llama
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m --start-interval=1s --retries=3 \
  CMD ["/usr/local/bin/healthcheck"]
ENTRYPOINT ["/opt/llama/init", "/opt/llama/llama-server"]
