"""What every test run has in common: the servers it started for its tests end with it."""

import os

from support.forking import close_source
from support.servers import RUN_VARIABLE, stop_shared_servers


def pytest_configure(config):
    """Name the run; the processes that tests run in inherit the name."""
    os.environ.setdefault(RUN_VARIABLE, str(os.getpid()))


def pytest_unconfigure(config):
    """End the process that commands are forked from, and the servers once, after the last of those processes."""
    close_source()
    if os.environ[RUN_VARIABLE] == str(os.getpid()):
        stop_shared_servers()
