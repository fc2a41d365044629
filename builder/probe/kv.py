"""Which type the KV cache has."""

from builder.probe.finding import Finding

PROBE = "kv"


def kv(asked: str) -> Finding:
    """What was asked for, which proves nothing.

    A server that falls back to another type says so at best in a log line below its default
    verbosity; its size line goes on naming the type that it was asked for.
    """
    return Finding(
        PROBE,
        "unproven",
        expected=f"K and V are held as {asked}",
        observed=f"asked: {asked}; in effect: not measured (a server that holds another type may "
        f"still log {asked})",
    )
