package probes

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/flow"
)

// compile makes a program of testdata that links OpenSSL.
func compile(t testing.TB, name string) string {
	t.Helper()
	if *clients != "" {
		return filepath.Join(*clients, name)
	}
	bin := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-pthread", "-o", bin, "testdata/"+name+".c", "-lssl", "-lcrypto").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc, with libssl-dev: %v\n%s", err, out)
	}
	return bin
}

// TestCalls: what was written and what was read is seen whole, once and in order, however
// the calls are made.
func TestCalls(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	url, ca := server(t, true)
	c.known(url, ca) // curl's library is this program's
	bin := compile(t, "sslcalls")
	for _, way := range []struct {
		name  string
		calls int
	}{{"plain", 1}, {"ex", 1}, {"retried", 1}, {"retried-ex", 1}, {"partial", 1}, {"nested", 1}, {"called-back", 1}, {"peeked", 1}, {"logging", 1},
		{"cleared", 1}, {"renegotiated", 1}, {"ended", 1}, {"ended-ex", 1}, {"cut", 1}, {"threads", 4}, {"forked", 2}} {
		t.Run(way.name, func(t *testing.T) {
			c := &capture{T: t, store: c.store}
			id := "calls-" + way.name
			run(t, nil, bin, way.name, id)
			for i := range way.calls {
				id := id
				if way.calls > 1 {
					id = fmt.Sprintf("%s-%d", id, i)
				}
				want := fmt.Appendf(nil, "POST /v1/x?id=%s HTTP/1.1\r\nContent-Length: 40000\r\n\r\n", id)
				for i := range 40000 {
					want = append(want, 'a'+byte(i%26))
				}
				for i := 1000; way.name == "logging" && i < len(want); i += 1000 {
					copy(want[i:i+14], map[bool]string{true: "POST / HTTP/1.1", false: "GET / HTTP/1.1"}[i%3000 == 0])
				}
				for _, dir := range []flow.Dir{flow.Write, flow.Read} {
					got := c.one(dir, "id="+id+" ")
					// Without cookies, before Linux 5.15, ended means no more than closed.
					if ended := dir == flow.Read && strings.HasPrefix(way.name, "ended") && c.taps.cookies; got.ended != ended {
						t.Errorf("%v %s: ended %v, want %v", dir, id, got.ended, ended)
					}
					if got.source != flow.SourceOpenSSL || got.late || got.gap != 0 || got.heads != 1 || !bytes.Equal(got.bytes, want) {
						t.Errorf("%v %s: source %v, late %v, gap %d, heads %d, %d bytes, want %d", dir, id, got.source, got.late, got.gap, got.heads, len(got.bytes), len(want))
					}
				}
			}
		})
	}
}
