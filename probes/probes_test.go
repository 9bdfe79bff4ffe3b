package probes

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
)

func TestNumbersAreThoseOfFlow(t *testing.T) {
	for got, want := range map[uint32]uint8{
		uint32(coreSourceSOURCE_OPENSSL): uint8(flow.SourceOpenSSL), uint32(coreSourceSOURCE_GOTLS): uint8(flow.SourceGoTLS),
		uint32(coreSourceSOURCE_SOCKET_TRACEPOINT): uint8(flow.SourceSocketTracepoint), uint32(coreSourceSOURCE_AEAD_RING): uint8(flow.SourceAEADRing),
		uint32(coreSourceNUM_SOURCES): uint8(flow.NumSources),
	} {
		if got != uint32(want) {
			t.Errorf("source %d of wire.h is %d in flow", got, want)
		}
	}
	for got, want := range map[uint32]uint8{
		uint32(coreGapReasonGAP_IGNORED): uint8(flow.GapIgnored), uint32(coreGapReasonGAP_RING_FULL): uint8(flow.GapRingFull),
		uint32(coreGapReasonGAP_FAULT): uint8(flow.GapFault), uint32(coreGapReasonGAP_OVER_LIMIT): uint8(flow.GapOverLimit),
		uint32(coreGapReasonGAP_MISSED): uint8(flow.GapMissed), uint32(coreGapReasonGAP_UNREADABLE): uint8(flow.GapUnreadable), uint32(coreGapReasonGAP_STATE): uint8(flow.GapState),
		uint32(coreGapReasonNUM_GAP_REASONS): uint8(flow.NumGapReasons),
	} {
		if got != uint32(want) {
			t.Errorf("gap reason %d of wire.h is %d in flow", got, want)
		}
	}
	if uint32(coreKindKIND_EXIT) != uint32(flow.KindExit) || uint32(coreVerdictVERDICT_NOT_HTTP) != uint32(flow.VerdictNotHTTP) || uint32(coreDirDIR_READ) != uint32(flow.Read) {
		t.Error("kinds, verdicts or directions differ from flow's")
	}
}

// TestOpenSSL: curl's request and answer, whole, in order, once.
func TestOpenSSL(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16), 0o644); err != nil {
		t.Fatal(err)
	}
	out := curl(t, ca, "--header", "Expect:", "--data-binary", "@"+body, url+"/v1/x?id=openssl-one")
	if !strings.Contains(out, "answer to openssl-one: 3145728 bytes") {
		t.Fatal(out)
	}
	w := c.one(flow.Write, "POST /v1/x?id=openssl-one")
	if w.source != flow.SourceOpenSSL || w.late || w.gap != 0 || w.heads != 1 {
		t.Errorf("source %v, late %v, gap %d, heads %d", w.source, w.late, w.gap, w.heads)
	}
	head, sent, _ := bytes.Cut(w.bytes, []byte("\r\n\r\n"))
	if len(sent) != 3<<20 || !bytes.HasSuffix(sent, []byte("0123456789abcdef")) {
		t.Errorf("%d bytes of the body came, behind %q", len(sent), head)
	}
	if !slices.IsSorted(w.times) {
		t.Error("times go back")
	}
	r := c.one(flow.Read, "answer to openssl-one")
	if !bytes.HasPrefix(r.bytes, []byte("HTTP/1.1 200")) || r.heads != 1 || !r.closed {
		t.Errorf("heads %d, closed %v, %q", r.heads, r.closed, r.bytes)
	}
	if r.times[0] < w.times[len(w.times)-1] {
		t.Error("the answer came before the request")
	}
}

// TestPlaintextSocket: curl without TLS, by the sockets.
func TestPlaintextSocket(t *testing.T) {
	c := start(t, Config{})
	url, _ := server(t, false)
	curl(t, "", "--data-binary", "plain text", url+"/v1/x?id=socket-one")
	w := c.one(flow.Write, "POST /v1/x?id=socket-one")
	if w.source != c.taps.sockets || w.late || !bytes.HasSuffix(w.bytes, []byte("plain text")) {
		t.Errorf("source %v, late %v, %q", w.source, w.late, w.bytes)
	}
	c.one(flow.Read, "answer to socket-one: 10 bytes")
}

// TestDownloadDoesNotCross: nothing of a GET that is no model's crosses, and the
// POST after it on the same connection does.
func TestDownloadDoesNotCross(t *testing.T) {
	for _, tls := range []bool{true, false} {
		t.Run(fmt.Sprintf("tls=%v", tls), func(t *testing.T) {
			if tls {
				anyWay(t)
			}
			c := start(t, Config{})
			url, ca := server(t, tls)
			c.known(url, ca)
			id, args := fmt.Sprintf("after-nine-%v", tls), []string{}
			for i := range 9 {
				args = append(args, "--output", "/dev/null", fmt.Sprintf("%s/file%d?bytes=%d", url, i, 1<<20), "--next", "--http1.1", "--silent", "--cacert", cmp.Or(ca, "/dev/null"))
			}
			curl(t, ca, append(args, "--data", "{}", url+"/v1/x?id="+id)...)
			w := c.one(flow.Write, "id="+id)
			if bytes.Contains(w.bytes, []byte("GET /file")) {
				t.Error("heads of downloads crossed")
			}
			r := c.one(flow.Read, "answer to "+id)
			if r.gap < 9<<20 {
				t.Errorf("a gap of %d bytes, want nine downloads of 1 MiB", r.gap)
			}
			if got := len(r.bytes) - int(r.gap); got > 4096 {
				t.Errorf("%d bytes crossed", got)
			}
		})
	}
}

// TestFetchedAnswersCross: GETs whose path may be that of an answer made before cross.
func TestFetchedAnswersCross(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca)
	fetched := []string{"/v1/threads/t/runs/run_1", "/v1/batches/batch_1", "/v1/messages/batches/b/results", "/v1/responses/resp_1",
		"/v1/predictions/p", "/openai/v1/realtime", "/api-ws/v1/inference", "/ws/live"}
	others := []string{"/rules/1", "/v1/files/f", "/bar/1", "/news/1"}
	var args []string
	for _, path := range append(fetched, others...) {
		args = append(args, url+path+"?id=x", "--next", "--http1.1", "--silent", "--cacert", ca)
	}
	curl(t, ca, append(args, "--data", "{}", url+"/v1/x?id=after-fetches")...)
	w := c.one(flow.Write, "id=after-fetches")
	for _, path := range fetched {
		if !bytes.Contains(w.bytes, []byte("GET "+path)) {
			t.Errorf("%s did not cross", path)
		}
	}
	for _, path := range others {
		if bytes.Contains(w.bytes, []byte("GET "+path)) {
			t.Errorf("%s crossed", path)
		}
	}
}

// TestVerdict: an exchange that user space does not want stops crossing; the next
// one's head crosses again.
func TestVerdict(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca)
	seen := make(chan struct{})
	go func() { // the decoder's part
		defer close(seen)
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			c.mu.Lock()
			for k, s := range c.streams {
				if k.dir == flow.Write && bytes.Contains(s.bytes, []byte("id=unwanted")) {
					c.mu.Unlock()
					if err := c.taps.SetVerdict(k.conn, 1, flow.VerdictIgnore); err != nil {
						t.Error(err)
					}
					return
				}
			}
			c.mu.Unlock()
		}
	}()
	curl(t, ca, "--data", "{}", "--limit-rate", "4M", "--output", "/dev/null", fmt.Sprintf("%s/v1/x?id=unwanted&bytes=%d", url, 8<<20),
		"--next", "--http1.1", "--silent", "--cacert", ca, "--data", "{}", url+"/v1/x?id=wanted")
	<-seen
	r := c.one(flow.Read, "answer to wanted")
	if r.gap < 1<<20 { // how much crossed before the verdict is the machine's speed
		t.Errorf("%d of 8 MiB were held back", r.gap)
	}
}

// TestOverLimit: what is longer than the limit is counted and leaves a gap with a name.
func TestOverLimit(t *testing.T) {
	anyWay(t)
	const more = 1 << 20
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, c.taps.cfg.BodyLimit+more), 0o644); err != nil {
		t.Fatal(err)
	}
	before := c.taps.Stats().Sources[flow.SourceOpenSSL].Dropped[flow.GapOverLimit]
	curl(t, ca, "--header", "Expect:", "--data-binary", "@"+body, url+"/v1/x?id=too-long", "--next", "--http1.1", "--silent", "--cacert", ca, "--data", "{}", url+"/v1/x?id=short")
	w := c.one(flow.Write, "id=short")
	if w.gap < more || w.gap > more+64<<10 {
		t.Errorf("a gap of %d bytes, want %d and a head", w.gap, more)
	}
	if n := c.taps.Stats().Sources[flow.SourceOpenSSL].Dropped[flow.GapOverLimit] - before; n != w.gap {
		t.Errorf("%d bytes were counted over_limit, want the gap's %d", n, w.gap)
	}
}

// TestTinyRing: what a ring has no room for is counted and named.
func TestTinyRing(t *testing.T) {
	needRoot(t)
	taps, err := Start(context.Background(), Config{Rings: 1, RingBytes: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	url, ca := server(t, true)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	var s SourceStats
	for range 20 { // the first may pass before curl's library is tapped; nobody reads the ring
		curl(t, ca, "--header", "Expect:", "--data-binary", "@"+body, url+"/v1/x?id=tiny")
		if s = taps.Stats().Sources[flow.SourceOpenSSL]; s.Dropped[flow.GapRingFull] > 900_000 {
			break
		}
	}
	if s.Dropped[flow.GapRingFull] < 900_000 || s.Seen != s.Submitted+s.Ignored+s.Dropped[flow.GapRingFull] {
		t.Errorf("%+v", s)
	}
	// What is left of the ring is soon full of the ends of connections.
	curl(t, ca, "--header", "Connection: close", "--data", "{}", url+"/v1/x?id=tiny-[1-60]")
	if s = taps.Stats().Sources[flow.SourceOpenSSL]; s.LostEnds == 0 {
		t.Error("no end was lost in a full ring")
	}
	if err := taps.Close(); err != nil {
		t.Error(err)
	}
}

// TestLostRequestIsNumbered: a request that the ring has no room for is counted as one all
// the same, so that its answer is not taken for the next one's.
func TestLostRequestIsNumbered(t *testing.T) {
	anyWay(t)
	c := start(t, Config{Rings: 1, RingBytes: 1}) // room for several small records, and for no other
	url, ca := server(t, true)
	c.known(url, ca)
	run(t, nil, "/usr/bin/python3", "-c", `
import socket, ssl, sys
host, port = sys.argv[1].removeprefix("https://").split(":")
at = ssl.create_default_context(cafile=sys.argv[2]).wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
for id, size in ("first", 10), ("lost", 3000), ("last", 10):
    at.sendall(f"POST /v1/x?id=numbered-{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
    got = b""
    while b"answer to " not in got: got += at.recv(4096) or sys.exit("the server has closed")
`, url, ca)
	requests := c.one(flow.Write, "id=numbered-last")
	if bytes.Contains(requests.bytes, []byte("id=numbered-lost")) {
		t.Fatal("the ring had room for all: the test says nothing")
	}
	asked, answered := requests.exchanges, c.one(flow.Read, "answer to numbered-last").exchanges
	if len(asked) != 2 || len(answered) != 3 || asked[0] != answered[0] || asked[1] != answered[2] || slices.Contains(asked, answered[1]) {
		t.Errorf("exchanges: asked %v, answered %v", asked, answered)
	}
}

// TestOneFileUnderTwoMounts: a file of a layer that two overlays share is tapped
// once, and each call is seen once.
func TestOneFileUnderTwoMounts(t *testing.T) {
	anyWay(t)
	needRoot(t)
	dir, err := os.MkdirTemp("/tmp", "overlay") // an overlay over an overlay needs another file system above
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	lower := filepath.Join(dir, "lower")
	libssl := strings.Fields(run(t, nil, "sh", "-c", "ldd $(command -v curl) | awk '/libssl/{print $3}'"))[0]
	if err := os.Mkdir(lower, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "cp", "-L", libssl, filepath.Join(lower, filepath.Base(libssl)))
	var merged []string
	for _, name := range []string{"one", "two"} {
		m := filepath.Join(dir, name)
		for _, sub := range []string{"u", "w", "m"} {
			if err := os.MkdirAll(filepath.Join(m, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		at := filepath.Join(m, "m")
		if err := unix.Mount("overlay", at, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, filepath.Join(m, "u"), filepath.Join(m, "w"))); err != nil {
			t.Fatalf("mount overlay: %v", err)
		}
		defer unix.Unmount(at, unix.MNT_DETACH) // the probes keep it
		merged = append(merged, at)
	}
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca)
	get := func(lib, id string) {
		run(t, []string{"LD_LIBRARY_PATH=" + lib}, "curl", "--http1.1", "--silent", "--show-error", "--cacert", ca, "--data", "{}", url+"/v1/x?id="+id)
	}
	attached := func() (n int) {
		for _, a := range c.taps.Attached() {
			for _, m := range merged {
				if strings.HasPrefix(a.Path, m) {
					n++
				}
			}
		}
		return n
	}
	for i, m := range merged { // the first use lets the file be found
		get(m, fmt.Sprintf("first-%d", i))
	}
	for deadline := time.Now().Add(5 * time.Second); attached() == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	for i, m := range merged {
		id := fmt.Sprintf("overlay-%d", i)
		get(m, id)
		c.one(flow.Write, "id="+id) // fails when it is seen twice
	}
	if n := attached(); n != 1 {
		t.Errorf("%d attachments for one file", n)
	}
}

// TestPeekIsNotCounted, and a request read a byte at a time is still found.
func TestPeekIsNotCounted(t *testing.T) {
	c := start(t, Config{})
	const script = `
import socket, threading
s = socket.create_server(("127.0.0.1", 0))
def client():
    k = socket.create_connection(s.getsockname())
    k.sendall(b"POST /v1/x?id=byte-by-byte HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    while k.recv(100): pass
t = threading.Thread(target=client); t.start()
k, _ = s.accept()
k.recv(20, socket.MSG_PEEK)
got = b""
while not got.endswith(b"{}"): got += k.recv(1)
k.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
k.close(); t.join()
`
	run(t, nil, "python3", "-c", script)
	r := c.one(flow.Read, "POST /v1/x?id=byte-by-byte")
	if want := "POST /v1/x?id=byte-by-byte HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"; string(r.bytes) != want {
		t.Errorf("read %q", r.bytes)
	}
}

// TestNothingStaysAttached: Close takes everything out of the kernel.
func TestNothingStaysAttached(t *testing.T) {
	c := start(t, Config{Rings: 1})
	url, ca := server(t, true)
	c.known(url, ca)
	curl(t, ca, "--data", "{}", url+"/v1/x?id=before-close")
	c.one(flow.Write, "id=before-close")
	if err := c.taps.Close(); err != nil {
		t.Fatal(err)
	}
	curl(t, ca, "--data", "{}", url+"/v1/x?id=after-close")
	time.Sleep(100 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if bytes.Contains(s.bytes, []byte("after-close")) {
			t.Error("still attached")
		}
	}
}
