"""Lets `python -m ggufsteer` do what the `ggufsteer` command does."""

from ggufsteer.cli.main import main

if __name__ == "__main__":
    main()
