"""What is served, for people and for scripts."""

import dataclasses
import json
import shlex

from builder.llama.container_paths import LOOPBACK
from builder.serve.run import Plan, Row, Up

HEADER = ("profile", "state", "alias", "url", "model", "image", "note")


def to_json(up: Up) -> str:
    """The answer of `serve` and `swap` as indented JSON."""
    spec = up.spec
    return json.dumps(
        {
            "schema": 1,
            "profile": up.profile,
            "alias": spec.alias,
            "url": spec.url,
            "host": spec.host,
            "port": spec.port,
            "api_key_file": spec.key_file,
            "image": spec.image,
            "image_id": spec.image_id,
            "model": spec.model,
            "kv": up.kv,
            "parallel": up.parallel,
            "slot_tokens": up.slot_tokens,
            "gpu": spec.gpu,
            "arguments": spec.arguments,
            "ready_s": up.ready_s,
            "already": up.already,
            "replaced": up.replaced,
            "warnings": up.warnings,
        },
        indent=2,
    )


def plan_to_json(plan: Plan) -> str:
    """What `--dry-run` says as indented JSON."""
    spec = dataclasses.asdict(plan.starts.spec)
    return json.dumps(
        {
            "schema": 1,
            "profile": plan.starts.name,
            "already": plan.already,
            "stops": plan.stops,
            "starts": {key: spec[key] for key in _SHOWN},
            "warnings": plan.starts.warnings,
        },
        indent=2,
    )


_SHOWN = (
    "image",
    "model",
    "draft",
    "host",
    "port",
    "key_file",
    "memory",
    "gpu",
    "env",
    "arguments",
)


def plan_text(plan: Plan) -> str:
    """The same in words."""
    spec = plan.starts.spec
    if plan.already:
        return f"{plan.starts.name} is served as asked already, at {spec.url}"
    lines = [f"stop {name}" for name in plan.stops]
    lines.append(f"start {plan.starts.name}: {spec.image} at {spec.host}:{spec.port}")
    lines.append(f"  model {spec.model}")
    lines.append(f"  llama-server {shlex.join(spec.arguments)}")
    return "\n".join(lines)


def text(up: Up) -> str:
    """That it is up, and how to use it."""
    spec = up.spec
    how = "was up already" if up.ready_s is None else f"ready after {up.ready_s:.1f} s"
    instead = f", in place of {', '.join(up.replaced)}" if up.replaced else ""
    lines = [
        f"{up.profile}  {how}{instead}: {spec.url}",
        f"  model     {spec.alias}: {up.parallel} × {up.slot_tokens} tokens, KV {up.kv}",
    ]
    if spec.host != LOOPBACK:
        lines.append(f"  bound at  {spec.host}, with the keys of {spec.key_file}")
    if up.embeddings:
        lines.append(f"  texts     {spec.url}/v1/embeddings, model {spec.alias}")
    else:
        lines.append(f'  agents    eval "$(builder env {up.profile})"')
        lines.append(f"  OpenAI    {spec.url}/v1, model {spec.alias}")
    lines.append(f"  then      builder ps; builder swap PROFILE; builder stop {up.profile}")
    return "\n".join(lines)


def rows_to_json(rows: list[Row]) -> str:
    """The answer of `ps` as indented JSON."""
    return json.dumps({"schema": 1, "served": [dataclasses.asdict(row) for row in rows]}, indent=2)


def table(rows: list[Row]) -> list[tuple[str, ...]]:
    """The rows of `ps`; HEADER names the columns."""
    return [
        (row.profile, row.state, row.alias, row.url, row.model, row.image, _note(row))
        for row in rows
    ]


def _note(row: Row) -> str:
    again = f"restarted {row.restarts} times by the engine" if row.restarts else ""
    return "; ".join(filter(None, [row.note, again]))
