"""`python -m jobs.data_verify`: the door for `ray job submit`; the same as `rlaif data verify`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "verify", *sys.argv[1:]]))
