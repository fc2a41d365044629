r"""Speed and KV bytes of several servers side by side: prefill, decode, time to first token.

    .venv/bin/python benchmarks/kv_speed.py --model big.gguf \
        "mainline f16=mainline/llama-server,f16,1" "mainline q8_0=mainline/llama-server,q8_0,1" \
        "turbo4=fork/llama-server,turbo4,1" "turbo4, two slots=fork/llama-server,turbo4,2"

Each word is NAME=BINARY,KV,SLOTS; the first is the baseline. All servers are started, so the model
must fit as often into the GPU's memory. Rounds are interleaved: each asks every server once, at
every context, with a prompt that no server has seen. A figure is the mean over the rounds; the
ratio to the baseline is the geometric mean of the rounds' own ratios, with its 95 % interval by
Student's t. Two slots are asked at once, and their tokens counted together.
`benchmarks/random_model.py` writes a large model: speed and bytes need no trained weights.
"""

import argparse
import contextlib
import json
import math
import random
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

DECODED = 64
"""Tokens decoded after each prompt."""

T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Rounds → Student's t for 95 %, rounds - 1 degrees of freedom."""

FIGURES = ("prefill", "decode", "first_token")
KV_SIZE = re.compile(r"K \(\S+\): +([\d.]+) MiB, V \(\S+\): +([\d.]+) MiB")


@dataclass(frozen=True)
class Config:
    """One server: its name in the table, program, KV type and slots."""

    name: str
    binary: str
    kv: str
    slots: int


@dataclass(frozen=True)
class Sample:
    """One round at one context. Tokens a second, and seconds."""

    prefill: float
    decode: float
    first_token: float


@dataclass(frozen=True)
class Server:
    """A started one, and the file of its log."""

    config: Config
    url: str
    log: Path

    def kv_mib(self) -> float:
        """K and V of the last caches that the log names: those that serve."""
        text = self.log.read_text(errors="replace").rpartition("constructing llama_context")[2]
        return sum(float(k) + float(v) for k, v in KV_SIZE.findall(text))


def parse(word: str) -> Config:
    name, _, rest = word.partition("=")
    binary, kv, slots = rest.rsplit(",", 2)
    return Config(name, binary, kv, int(slots))


@contextlib.contextmanager
def started(config: Config, model: Path, context: int, folder: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / f"{port}.log"
    command = [config.binary, "-m", str(model), "--port", str(port), "-lv", "4", "--fit", "off"]
    command += ["-ctk", config.kv, "-ctv", config.kv, "-fa", "on", "-ngl", "999"]
    command += ["-np", str(config.slots), "-c", str(config.slots * (context + 2 * DECODED))]
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        server = Server(config, f"http://127.0.0.1:{port}", log)
        try:
            wait(server, process)
            yield server
        finally:
            process.terminate()


def wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{server.url}/health", timeout=5).ok:
                return
        time.sleep(0.2)
    raise SystemExit(f"{server.config.name} ended: {server.log.read_text()[-2000:]}")


def ask(url: str, prompt: list[int]) -> tuple[float, dict[str, float]]:
    """Seconds to the first token, and the server's own timings."""
    body = {"prompt": prompt, "n_predict": DECODED, "stream": True, "ignore_eos": True}
    body |= {"cache_prompt": False, "temperature": 0}
    began, first, event = time.monotonic(), 0.0, {}
    with requests.post(f"{url}/completion", json=body, stream=True, timeout=3600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith(b"data: "):
                first = first or time.monotonic() - began
                event = json.loads(line[6:])
    return first, event["timings"]


def sample(server: Server, context: int, seed: str) -> Sample:
    dice = random.Random(seed)  # noqa: S311 -- prompts, no secrets
    prompts = [
        [dice.randrange(33, 127) for _ in range(context)] for _ in range(server.config.slots)
    ]
    with ThreadPoolExecutor(len(prompts)) as workers:
        answers = list(workers.map(lambda prompt: ask(server.url, prompt), prompts))
    slowest = max(first for first, _ in answers)
    prefilled = sum(timings["prompt_n"] for _, timings in answers)
    return Sample(
        prefill=prefilled / max(timings["prompt_ms"] for _, timings in answers) * 1000,
        decode=sum(timings["predicted_per_second"] for _, timings in answers),
        first_token=slowest,
    )


def ratio(mine: list[float], baseline: list[float]) -> str:
    """The geometric mean of the rounds' ratios and its 95 % interval."""
    logs = [math.log(one / other) for one, other in zip(mine, baseline, strict=True)]
    middle = statistics.fmean(logs)
    half = T95[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(middle):.2f} ({math.exp(middle - half):.2f}–{math.exp(middle + half):.2f})"


def table(servers: list[Server], context: int, taken: dict[str, list[Sample]]) -> None:
    print(f"\n{context} tokens of context, {DECODED} decoded\n")
    print("| server | KV, MiB | prefill, tokens/s | decode, tokens/s | first token, s |")
    print("|---|---|---|---|---|")
    for server in servers:
        cells = []
        for figure in FIGURES:
            mine, base = (
                [getattr(one, figure) for one in taken[config.name]]
                for config in (server.config, servers[0].config)
            )
            beside = "" if server is servers[0] else f", × {ratio(mine, base)}"
            cells.append(f"{statistics.fmean(mine):.4g}{beside}")
        print(f"| {server.config.name} | {server.kv_mib():.2f} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--contexts", default="1024,8192,32768")
    parser.add_argument("--rounds", type=int, default=5, choices=sorted(T95))
    parser.add_argument("--json", type=Path, help="every sample, too")
    parser.add_argument("configs", nargs="+", type=parse, metavar="NAME=BINARY,KV,SLOTS")
    asked = parser.parse_args()
    contexts = [int(one) for one in asked.contexts.split(",")]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(started(config, asked.model, max(contexts), Path(folder)))
            for config in asked.configs
        ]
        every: dict[int, dict[str, list[Sample]]] = {}
        for context in contexts:
            taken = every.setdefault(context, {server.config.name: [] for server in servers})
            for turn in range(asked.rounds + 1):
                for server in servers:
                    one = sample(server, context, f"{context} {turn} {server.config.name}")
                    # The first round warms up.
                    taken[server.config.name] += [one] if turn else []
            table(servers, context, taken)
    if asked.json:
        rows = [
            {"context": context, "server": name, **asdict(one)}
            for context, taken in every.items()
            for name, samples in taken.items()
            for one in samples
        ]
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
