"""`python -m arcp` is the program `arcp`."""

from arcp.cli import main

if __name__ == "__main__":
    main()
