"""`python -m agent` is the same as `tcptuned`."""

import sys

from agent.cli import main

sys.exit(main())
