package probes

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// client is the start of every program of TestSocketCalls: a connection s, a request
// in two parts, and the C library for calls that Python lacks.
const client = `
import ctypes, os, socket, sys, tempfile
host, port, id = sys.argv[1], int(sys.argv[2]), sys.argv[3]
body = b"0123456789" * 10
head = f"POST /v1/x?id={id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
request = head + body
s = socket.create_connection((host, port))
libc = ctypes.CDLL(None)
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
class mmsghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_long), ("len", ctypes.c_long)]
kept = []
def messages(*parts):
    v = (mmsghdr * len(parts))()
    for m, p in zip(v, parts):
        p = [ctypes.create_string_buffer(b, len(b)) for b in p]
        m.iov, m.iovlen = (iovec * len(p))(*(iovec(ctypes.addressof(b), len(b)) for b in p)), len(p)
        kept.extend(p)
    return v
`

// forks is a program that runs others, one a line, each in a child of its own: to start
// Python takes seconds in an emulated machine.
const forks = `
import ctypes, json, os, socket, sys, tempfile, traceback
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        program, *sys.argv[1:] = json.loads(line)
        its = {}
        try:
            exec(program, its)
            its.clear() # closes its sockets
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
`

// forker starts forks; what it returns runs one program.
func forker(t *testing.T) func(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command("python3", "-c", forks)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	answers := bufio.NewScanner(out)
	return func(t *testing.T, program string, args ...string) {
		t.Helper()
		if err := json.NewEncoder(in).Encode(append([]string{program}, args...)); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() || answers.Text() != "0" {
			t.Fatalf("the program ended with %q", answers.Text())
		}
	}
}

// TestSocketCalls: every way to write to a socket and to read from it, whole, once, in
// order; what cannot be read is a gap that is counted.
func TestSocketCalls(t *testing.T) {
	c := start(t, Config{})
	server, _ := server(t, false)
	at, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	python := forker(t)
	for _, call := range []struct {
		name, program       string
		unwritten, unreadby string // the part that no probe can read: body or answer
	}{
		{name: "send,recv", program: `
s.sendall(request)
while s.recv(4096): pass`},
		{name: "write,read", program: `
os.write(s.fileno(), request)
while os.read(s.fileno(), 4096): pass`},
		{name: "writev,readv", program: `
os.writev(s.fileno(), [request[:3], b""] + [request[i:i+5] for i in range(3, 98, 5)] + [request[98:]])
while os.readv(s.fileno(), [bytearray(7), bytearray(1), bytearray(4096)]): pass`},
		{name: "sendmsg,recvmsg", program: `
s.sendmsg([request[:60], request[60:]])
while s.recvmsg_into([bytearray(5), bytearray(4096)])[0]: pass`},
		{name: "sendmmsg,recvmmsg", program: `
n = libc.sendmmsg(s.fileno(), messages([request[:9], request[9:20]], [request[20:21]], [request[21:]]), 3, 0)
assert n == 3, n
MSG_WAITFORONE = 0x10000
while True:
    v = messages([bytes(11), bytes(20)], [bytes(4096)])
    n = libc.recvmmsg(s.fileno(), v, 2, MSG_WAITFORONE, None)
    assert n > 0, n
    if any(m.len == 0 for m in v[:n]): break`},
		{name: "peek,urgent", program: `
s.sendall(request)
s.recv(100, socket.MSG_PEEK)
while s.recv(50):
    s.recv(50, socket.MSG_PEEK)`},
		{name: "sendfile", unwritten: "body", program: `
s.sendall(head)
with tempfile.TemporaryFile() as f:
    f.write(body); f.flush()
    assert os.sendfile(s.fileno(), f.fileno(), 0, len(body)) == len(body)
while s.recv(4096): pass`},
		{name: "splice", unreadby: "answer", program: `
s.sendall(request)
s.recv(17)
r, w = os.pipe()
libc.splice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
while libc.splice(s.fileno(), None, w, None, 4096, 0) > 0: os.read(r, 4096)`},
		{name: "truncated", unreadby: "answer", program: `
s.sendall(request)
s.recv(17)
while s.recv(4096, socket.MSG_TRUNC): pass`},
	} {
		t.Run(call.name, func(t *testing.T) {
			c := &capture{t, c.store}
			id := strings.ReplaceAll(call.name, ",", "-") + "-" + fmt.Sprint(time.Now().UnixNano())
			before := c.taps.Stats().Sources[c.taps.sockets].Dropped[flow.GapUnreadable]
			python(t, client+call.program, at.Hostname(), at.Port(), id)
			w := c.one(flow.Write, "POST /v1/x?id="+id)
			head, body, _ := bytes.Cut(w.bytes, []byte("\r\n\r\n"))
			want := bytes.Repeat([]byte("0123456789"), 10)
			if call.unwritten != "" {
				want = make([]byte, 100)
			}
			if w.source != c.taps.sockets || w.late || w.heads != 1 || !bytes.Equal(body, want) {
				t.Errorf("source %v, late %v, heads %d, gap %d, %q, %q", w.source, w.late, w.heads, w.gap, head, body)
			}
			r := c.of(w, flow.Read)
			answer := fmt.Sprintf("answer to %s: 100 bytes", id)
			if call.unreadby == "" {
				if r.heads != 1 || r.gap != 0 || !r.ended && call.name != "sendmmsg,recvmmsg" || !bytes.HasPrefix(r.bytes, []byte("HTTP/1.1 200 OK")) || !bytes.HasSuffix(r.bytes, []byte(answer)) {
					t.Errorf("heads %d, gap %d, ended %v, %q", r.heads, r.gap, r.ended, r.bytes)
				}
			} else if !bytes.HasPrefix(r.bytes, []byte("HTTP/1.1 200 OK\r\n\x00")) {
				t.Errorf("gap %d, %q", r.gap, r.bytes)
			}
			if !r.closed {
				t.Error("its end was not seen")
			}
			if gap := w.gap + r.gap; gap > 0 || call.unwritten+call.unreadby != "" {
				dropped := c.taps.Stats().Sources[c.taps.sockets].Dropped[flow.GapUnreadable] - before
				if gap < 100 || dropped < gap || max(w.reason, r.reason) != flow.GapUnreadable {
					t.Errorf("a gap of %d bytes for reason %v, %d of them dropped as unreadable", gap, max(w.reason, r.reason), dropped)
				}
			}
		})
	}
}

// of returns the other direction of a stream's connection, once that has ended.
func (c *capture) of(s *content, dir flow.Dir) *content {
	c.Helper()
	var found content
	for deadline := time.Now().Add(20 * time.Second); !found.closed && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		if o := c.streams[stream{s.conn, dir}]; o != nil {
			found = *o
		}
		c.mu.Unlock()
	}
	return &found
}

// TestMissedCalls: what went through a connection without a program's being told is a gap
// with a name. Here another process moves it.
func TestMissedCalls(t *testing.T) {
	c := start(t, Config{})
	server, _ := server(t, false)
	at, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	missed := func() uint64 { return c.taps.Stats().Sources[c.taps.sockets].Dropped[flow.GapMissed] }
	before := missed()
	id := fmt.Sprintf("missed-%d", time.Now().UnixNano())
	run(t, nil, "python3", "-c", client+`
def elsewhere(do):
    pid = os.fork()
    if not pid:
        do()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
s.sendall(head + body[:50])
elsewhere(lambda: s.sendall(body[50:80]))
s.sendall(body[80:])
s.recv(17)
elsewhere(lambda: s.recv(20))
while s.recv(4096): pass`, at.Hostname(), at.Port(), id)
	w := c.one(flow.Write, "POST /v1/x?id="+id)
	_, body, _ := bytes.Cut(w.bytes, []byte("\r\n\r\n"))
	want := bytes.Repeat([]byte("0123456789"), 10)
	clear(want[50:80])
	if w.late || w.heads != 1 || w.gap != 30 || w.reason != flow.GapMissed || !bytes.Equal(body, want) {
		t.Errorf("late %v, heads %d, a gap of %d for %v, %q", w.late, w.heads, w.gap, w.reason, body)
	}
	r := c.of(w, flow.Read)
	if r.gap != 20 || r.reason != flow.GapMissed || !bytes.HasPrefix(r.bytes, []byte("HTTP/1.1 200 OK\r\n\x00")) || !bytes.HasSuffix(r.bytes, []byte("answer to "+id+": 100 bytes")) {
		t.Errorf("a gap of %d for %v, %q", r.gap, r.reason, r.bytes)
	}
	if n := missed() - before; n != 50 {
		t.Errorf("%d bytes were counted, want 50", n)
	}
}

const socketChild = "SOCKET_CHILD"

// TestSocketChild is a program that other tests run: it makes a request with the
// standard library, or by io_uring.
func TestSocketChild(t *testing.T) {
	to, err := url.Parse(os.Getenv(socketChild))
	switch {
	case err != nil:
		t.Fatal(err)
	case to.Scheme == "":
		t.Skip("runs only as a child of another test")
	case to.Scheme == "https":
		c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		for range 2 { // the program may be new to the agent
			r, err := c.Post(to.String(), "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			c.CloseIdleConnections()
			time.Sleep(time.Second)
		}
	default:
		if err := requestByUring(to); err != nil {
			t.Fatal(err)
		}
	}
}

// child runs TestSocketChild.
func child(t *testing.T, to string) {
	t.Helper()
	run(t, []string{socketChild + "=" + to}, os.Args[0], "-test.run=^TestSocketChild$", "-test.v")
}

// TestUring: what no system call says is seen by the kernel's own functions, and by
// tracepoints of system calls is not, which the documentation says.
func TestUring(t *testing.T) {
	c := start(t, Config{})
	url, _ := server(t, false)
	child(t, url+"/v1/x?id=by-uring")
	if c.taps.sockets == flow.SourceSocketTracepoint {
		curl(t, "", "--data", "{}", url+"/v1/x?id=after-uring")
		c.one(flow.Write, "id=after-uring")
		if n := len(c.seen(flow.Write, "id=by-uring")); n != 0 {
			t.Errorf("seen %d times", n)
		}
		return
	}
	w := c.exchange(c.taps.sockets, flow.Write, "id=by-uring", "POST /v1/x?id=by-uring HTTP/1.1\r\n", "hello")
	if r := c.of(w, flow.Read); !bytes.HasSuffix(r.bytes, []byte("answer to by-uring: 5 bytes")) {
		t.Errorf("%q", r.bytes)
	}
}

// TestPeer: who is at the other end, for sockets and for TLS that uses them.
func TestPeer(t *testing.T) {
	c := start(t, Config{})
	plain, _ := server(t, false)
	secret, ca := server(t, true)
	c.known(secret, ca)
	port := func(s string) string {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u.Port()
	}
	check := func(id, want string) {
		t.Helper()
		if w := c.one(flow.Write, "id="+id); w.peer.String() != want {
			t.Errorf("%s: the peer is %v, want %s", id, w.peer, want)
		}
	}
	curl(t, "", "--data", "{}", plain+"/v1/x?id=peer-plain")
	check("peer-plain", "127.0.0.1:"+port(plain))
	curl(t, ca, "--data", "{}", secret+"/v1/x?id=peer-tls")
	check("peer-tls", "127.0.0.1:"+port(secret))
	// A socket of IPv6 that speaks IPv4.
	run(t, nil, "python3", "-c", `
import socket, sys
s = socket.socket(socket.AF_INET6)
s.connect(("::ffff:127.0.0.1", int(sys.argv[1])))
s.sendall(b"POST /v1/x?id=peer-mapped HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
while s.recv(4096): pass`, port(plain))
	check("peer-mapped", "127.0.0.1:"+port(plain))

	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	six := &http.Server{Handler: http.NotFoundHandler()}
	go six.Serve(l)
	defer six.Close()
	curl(t, "", "--data", "{}", "http://"+l.Addr().String()+"/v1/x?id=peer-six")
	check("peer-six", l.Addr().String())
}

// TestPlainAfterTLS: a thread that is out of its TLS library is seen at the sockets again.
func TestPlainAfterTLS(t *testing.T) {
	c := start(t, Config{})
	plain, _ := server(t, false)
	secret, ca := server(t, true)
	c.known(secret, ca)
	curl(t, ca, "--data", "{}", secret+"/v1/x?id=first-tls", "--next", "--http1.1", "--silent", "--data", "{}", plain+"/v1/x?id=then-plain")
	c.exchange(flow.SourceOpenSSL, flow.Write, "id=first-tls", "POST ", "{}")
	c.exchange(c.taps.sockets, flow.Write, "id=then-plain", "POST ", "{}")
}

// TestPeerOfGo: the goroutine that writes to the socket is the one in crypto/tls.
func TestPeerOfGo(t *testing.T) {
	c := start(t, Config{})
	secret, _ := server(t, true)
	child(t, secret+"/v1/x?id=peer-go")
	found := c.find(flow.Write, "id=peer-go")
	if len(found) == 0 {
		t.Fatal("not seen")
	}
	for _, w := range found {
		if want := strings.TrimPrefix(secret, "https://"); w.source != flow.SourceGoTLS || w.peer.String() != want {
			t.Errorf("source %v, the peer is %v, want %s", w.source, w.peer, want)
		}
	}
}
