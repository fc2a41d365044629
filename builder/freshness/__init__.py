"""How far pins are behind."""
