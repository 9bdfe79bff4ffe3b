# forked.py HOST PORT CA ID: makes a request, forks, and has the child make the next one by
# the session that it inherits.
import os, socket, ssl, sys

host, port, ca, id = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca).wrap_socket(
    socket.create_connection((host, int(port))), server_hostname="example.com")


def ask(who):
    tls.sendall(f"POST /v1/x?id={id}-{who} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode())
    got = b""
    while not got.endswith(b": 5 bytes"):
        part = tls.recv(4096)
        if not part:
            sys.exit("the answer ended early")
        got += part


ask("parent")
child = os.fork()
if not child:
    ask("child")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
