"""`python -m jobs.data_status`: the door for `ray job submit`; the same as `rlaif data status`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "status", *sys.argv[1:]]))
