"""Git remotes and GitHub's API."""
