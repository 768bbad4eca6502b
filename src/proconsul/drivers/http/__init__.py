"""HTTP/1.1 server on httptools and uvloop: connections, limits, keep-alive; no routes."""

from proconsul.drivers.http.limits import HttpLimits
from proconsul.drivers.http.message import Request, Response
from proconsul.drivers.http.protocol import Admit, Handler
from proconsul.drivers.http.server import HttpServer

__all__ = ["Admit", "Handler", "HttpLimits", "HttpServer", "Request", "Response"]
