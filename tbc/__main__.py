"""`python -m tbc`: the command line."""

from tbc.cli import main

if __name__ == "__main__":
    main()
