# corked.py HOST PORT ID HOW: makes a request by GnuTLS in one of the ways that gnutls_record_send
# allows: "corked", its parts gathered and then sent together; "again", without blocking, each send that
# was told to come again repeated with NULL, while the server reads nothing.
import ctypes, select, socket, sys

host, port, id, how = sys.argv[1:]
lib = ctypes.CDLL("libgnutls.so.30")
session, credentials = ctypes.c_void_p(), ctypes.c_void_p()
for f in lib.gnutls_record_send, lib.gnutls_record_recv:
    f.restype, f.argtypes = ctypes.c_ssize_t, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
lib.gnutls_transport_set_int2.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
lib.gnutls_transport_set_int2.restype = None
lib.gnutls_credentials_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
for f in lib.gnutls_handshake, lib.gnutls_set_default_priority, lib.gnutls_record_cork, lib.gnutls_deinit:
    f.argtypes = [ctypes.c_void_p]
lib.gnutls_record_uncork.argtypes = [ctypes.c_void_p, ctypes.c_uint]
AGAIN, CLIENT, CERTIFICATES, WAIT = -28, 1 << 1, 1, 1


def must(n):
    if n < 0:
        sys.exit(f"GnuTLS said {n}")
    return n


s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
s.connect((host, int(port)))
must(lib.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)))
must(lib.gnutls_init(ctypes.byref(session), CLIENT))
must(lib.gnutls_set_default_priority(session))
must(lib.gnutls_credentials_set(session, CERTIFICATES, credentials))
lib.gnutls_transport_set_int2(session, s.fileno(), s.fileno())
must(lib.gnutls_handshake(session))


def send(data):
    while data:
        n = lib.gnutls_record_send(session, data, len(data))
        while n == AGAIN:
            select.select([], [s], [])
            n = lib.gnutls_record_send(session, None, 0)
        data = data[must(n) :]


size, hold = (5, "0s") if how == "corked" else (400_000, "300ms")
head = f"POST /v1/x?until-close&id={id}&hold={hold} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
if how == "corked":
    lib.gnutls_record_cork(session)
    for part in head, b"he", b"llo":
        send(part)
    must(lib.gnutls_record_uncork(session, WAIT))
else:
    s.setblocking(False)
    send(head)
    send(b"x" * size)
    s.setblocking(True)
answer, buf = b"", ctypes.create_string_buffer(100)
while n := lib.gnutls_record_recv(session, buf, 100):
    if n != AGAIN:  # a ticket for the next session, and no data
        answer += buf.raw[: must(n)]
print(answer.decode())
lib.gnutls_deinit(session)
