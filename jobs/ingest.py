"""`python -m jobs.ingest`: the door for `ray job submit`; the same as `rlaif ingest`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
