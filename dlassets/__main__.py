"""Where the `dlassets` command begins. What it imports takes a part of a second, in which Ctrl-C ends it as well."""

import sys


def main() -> None:
    try:
        from dlassets.cli import main as command

        command(prog_name="dlassets")
    except KeyboardInterrupt:
        sys.stderr.write("Ended by Ctrl-C, before it began.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
