"""A server of its own process, for clients that start one."""

import logging

from tests.integrations.mcp.peers import Seen, server

logging.disable()
server(Seen()).run()
