"""`python -m builder` is `builder`."""

from builder.cli.main import main

if __name__ == "__main__":
    main()
