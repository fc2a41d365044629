"""Which tree is built, and checks of it."""
