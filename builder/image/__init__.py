"""What is in an image: layers, files, ELF, device code."""
