"""OCI registries: client, login, referrers."""
