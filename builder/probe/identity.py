"""Is it the server that was started: its name."""

from builder.probe.finding import Finding, verdict
from builder.probe.server import Server, get

PROBE = "identity"


def identity(server: Server) -> Finding:
    """Whether the first id in /v1/models is the alias that the server was given."""
    answer = get(server, "/v1/models")
    name = answer.at("data", 0, "id")
    return verdict(
        PROBE,
        holds=answer.status == 200 and name == server.alias,  # noqa: PLR2004
        expected=f"/v1/models names {server.alias}",
        observed=f"it names {name}" if isinstance(name, str) else str(answer),
    )
