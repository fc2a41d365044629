"""Lead clients to a served profile."""
