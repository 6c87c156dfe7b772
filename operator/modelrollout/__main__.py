"""`python -m modelrollout` is `modelrollout`."""

from modelrollout.cli import main

if __name__ == "__main__":
    main()
