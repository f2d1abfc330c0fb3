"""HTTP servers of tests. The standard library's ask the name service for their own name, for seconds on a Mac without one."""

import http.server
import socketserver


class LocalServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
