"""Milliseconds of an import in this fresh process; the argument is the statement."""

import sys
import time

begin = time.perf_counter()
exec(sys.argv[1])
print((time.perf_counter() - begin) * 1e3)
