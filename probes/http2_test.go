package probes

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/tollwire/tollwire/flow"
)

// h2Frames are frames as they are written, and as they cross: held back bytes are zero.
type h2Frames struct{ written, crossing []byte }

func (f *h2Frames) add(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte, header, body bool) {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), byte(kind), byte(flags)}
	b = binary.BigEndian.AppendUint32(b, id)
	f.written = append(append(f.written, b...), payload...)
	if !header {
		clear(b)
	}
	if !body {
		payload = make([]byte, len(payload))
	}
	f.crossing = append(append(f.crossing, b...), payload...)
}

// bothEnds is a program with both ends of a connection: it sends what it is told to,
// one line of segments as hex a call, and reads it in pieces of its own.
const bothEnds = `
import socket, sys, threading
l = socket.create_server(("127.0.0.1", 0))
client, server = socket.create_connection(l.getsockname()), None
server, _ = l.accept()
sent = read = 0
for line in sys.stdin:
    parts = [bytes.fromhex(p) for p in line.split()]
    total = sum(map(len, parts))
    t = threading.Thread(target=client.sendmsg, args=(parts,))
    t.start()
    sent += total
    while read < sent:
        read += len(server.recv(1 + read * 7919 % 5000))
    t.join()
    print(read, flush=True)
`

// cut returns b as lines of segments, cut anywhere.
func cut(b []byte, rnd *rand.Rand) (lines []string) {
	for len(b) > 0 {
		var parts []string
		for range 1 + rnd.IntN(4) {
			n := min(len(b), 1+rnd.IntN(12))
			if rnd.IntN(3) == 0 {
				n = min(len(b), 1+rnd.IntN(40_000))
			}
			parts, b = append(parts, fmt.Sprintf("%x", b[:n])), b[n:]
			if len(b) == 0 {
				break
			}
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	return lines
}

// TestHTTP2Frames: of an HTTP/2 connection the header blocks cross and the DATA of
// wanted streams, wherever the calls cut the frames. Kernels without bpf_loop let all of
// it cross.
func TestHTTP2Frames(t *testing.T) {
	c := start(t, Config{})
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, seed))
	program := exec.Command("python3", "-c", bothEnds)
	stdin, err1 := program.StdinPipe()
	stdout, err2 := program.StdoutPipe()
	if err := errors.Join(err1, err2, program.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := program.Wait(); err != nil {
			t.Error(err)
		}
	}()
	answers := bufio.NewScanner(stdout)
	send := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if _, err := fmt.Fprintln(stdin, line); err != nil || !answers.Scan() {
				t.Fatalf("the program is gone: %v", err)
			}
		}
	}
	mark := []byte(fmt.Sprintf("%s is %d", t.Name(), rnd.Uint64()))

	f := &h2Frames{}
	f.written = []byte(http2.ClientPreface)
	f.crossing = bytes.Clone(f.written)
	f.add(http2.FrameSettings, 0, 0, make([]byte, 12), true, true)
	f.add(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, mark, true, true)
	send(fmt.Sprintf("%x", f.written))
	c.one(flow.Write, string(mark))
	c.mu.Lock()
	for k, s := range c.streams {
		if bytes.Contains(s.bytes, mark) {
			if err := c.taps.SetVerdict(k.conn, 3, flow.VerdictIgnore); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.mu.Unlock()
	from := len(f.written)
	payload := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(1 + rnd.IntN(255))
		}
		return b
	}
	for range 400 {
		n := rnd.IntN(300)
		if rnd.IntN(4) == 0 {
			n = rnd.IntN(16 << 10)
		}
		switch rnd.IntN(8) {
		case 0, 1:
			f.add(http2.FrameData, 0, 1, payload(n), true, true)
		case 2, 3, 4:
			f.add(http2.FrameData, 0, 3, payload(n), false, false)
		case 5:
			f.add(http2.FrameData, http2.FlagDataEndStream, 3, payload(n), true, false)
		case 6:
			f.add(http2.FramePing, 0, 0, payload(8), false, false)
			f.add(http2.FrameWindowUpdate, 0, 3, payload(4), false, false)
		case 7:
			f.add(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 5, payload(1+n), true, true)
		}
	}
	f.add(http2.FrameGoAway, 0, 0, append(payload(8), "the end"...), true, true)
	send(cut(f.written[from:], rnd)...)
	want := f.crossing
	if !hasLoop() {
		want = f.written
	}
	for _, dir := range []flow.Dir{flow.Write, flow.Read} {
		if got := c.one(dir, string(mark)).bytes; !bytes.Equal(got, want) {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			t.Errorf("%v: %d bytes, want %d; they differ from %d on", dir, len(got), len(want), at)
		}
	}
}
