package probes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/flow"
)

// compile makes a program of testdata.
func compile(t testing.TB, name string, libraries ...string) string {
	t.Helper()
	if *clients != "" {
		return filepath.Join(*clients, name)
	}
	bin := filepath.Join(t.TempDir(), name)
	args := append([]string{"-O2", "-Wall", "-Werror", "-pthread", "-o", bin, "testdata/" + name + ".c"}, libraries...)
	out, err := exec.Command("gcc", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("gcc, with libssl-dev: %v\n%s", err, out)
	}
	return bin
}

// manner is one that testdata/sslcalls.c makes its calls in.
type manner struct {
	name  string
	calls int
}

// TestCalls: what was written and what was read is seen whole, once and in order, however
// the calls are made.
func TestCalls(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	c.ready()
	bin := compile(t, "sslcalls", "-lssl", "-lcrypto")
	for _, m := range []manner{{"plain", 1}, {"ex", 1}, {"retried", 1}, {"retried-ex", 1}, {"partial", 1}, {"nested", 1}, {"called-back", 1}, {"peeked", 1}, {"logging", 1},
		{"cleared", 1}, {"renegotiated", 1}, {"ended", 1}, {"ended-ex", 1}, {"cut", 1}, {"threads", 4}, {"forked", 2}} {
		t.Run(m.name, func(t *testing.T) { c.makes(t, bin, m) })
	}
}

// TestPlaces: a thread whose place is another's is kept all the same, and who has ended
// leaves its place.
func TestPlaces(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	c.ready()
	bin := compile(t, "sslcalls", "-lssl", "-lcrypto")
	owners := c.taps.core.Owners
	var taken []uint32
	for i := range owners.MaxEntries() {
		if owners.Update(i, uint64(1), ebpf.UpdateNoExist) == nil {
			taken = append(taken, i)
		}
	}
	if len(taken) == 0 {
		t.Error("there was no place to take")
	}
	for _, m := range []manner{{"nested", 1}, {"threads", 4}, {"forked", 2}} {
		t.Run("taken/"+m.name, func(t *testing.T) { c.makes(t, bin, m) })
	}
	for _, i := range taken {
		if err := owners.Delete(i); err != nil {
			t.Error(err)
		}
	}
	t.Run("free/threads", func(t *testing.T) {
		c, m := &capture{T: t, store: c.store}, manner{"threads", 4}
		id := strings.ReplaceAll(t.Name(), "/", "-")
		cmd := exec.Command(bin, m.name, id)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		c.made(id, m)
		threads := threadsOf(t, cmd.Process.Pid)
		if len(threads) != 1+m.calls {
			t.Errorf("%d threads live, want %d", len(threads), 1+m.calls)
		}
		// Another program's thread may have the place of one, not those of all.
		own := c.inPlace(threads)
		if len(own) == 0 {
			t.Error("none of the threads has its place")
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); len(own) > 0 && time.Now().Before(end); own = c.inPlace(threads) {
			time.Sleep(10 * time.Millisecond)
		}
		if len(own) > 0 {
			t.Errorf("these have ended and have their places: %x", own)
		}
	})
}

// threadsOf are a process's threads, as the programs know them.
func threadsOf(t *testing.T, pid int) (ids []uint64) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, uint64(pid)<<32|uint64(tid))
	}
	return ids
}

// inPlace are those threads that own their place.
func (c *capture) inPlace(threads []uint64) (own []uint64) {
	for _, id := range threads {
		var owner uint64
		places := c.taps.core.Places.MaxEntries()
		if c.taps.core.Owners.Lookup(uint32(id)%places, &owner) == nil && owner == id {
			own = append(own, id)
		}
	}
	return own
}

// ready waits until OpenSSL is tapped.
func (c *capture) ready() {
	url, ca := server(c.T, true)
	c.known(url, ca) // curl's library is this program's
}

// makes has calls made in a manner.
func (c *capture) makes(t *testing.T, bin string, m manner) {
	id := strings.ReplaceAll(t.Name(), "/", "-")
	run(t, nil, bin, m.name, id)
	(&capture{T: t, store: c.store}).made(id, m)
}

// made holds what was seen of the calls to how they were made.
func (c *capture) made(id string, m manner) {
	c.Helper()
	for i := range m.calls {
		id := id
		if m.calls > 1 {
			id = fmt.Sprintf("%s-%d", id, i)
		}
		want := fmt.Appendf(nil, "POST /v1/x?id=%s HTTP/1.1\r\nContent-Length: 40000\r\n\r\n", id)
		for i := range 40000 {
			want = append(want, 'a'+byte(i%26))
		}
		for i := 1000; m.name == "logging" && i < len(want); i += 1000 {
			copy(want[i:i+14], map[bool]string{true: "POST / HTTP/1.1", false: "GET / HTTP/1.1"}[i%3000 == 0])
		}
		for _, dir := range []flow.Dir{flow.Write, flow.Read} {
			got := c.one(dir, "id="+id+" ")
			// Without cookies, before Linux 5.15, ended means no more than closed.
			if ended := dir == flow.Read && strings.HasPrefix(m.name, "ended") && c.taps.cookies; got.ended != ended {
				c.Errorf("%v %s: ended %v, want %v", dir, id, got.ended, ended)
			}
			if got.source != flow.SourceOpenSSL || got.late || got.gap != 0 || got.heads != 1 || !bytes.Equal(got.bytes, want) {
				c.Errorf("%v %s: source %v, late %v, gap %d, heads %d, %d bytes, want %d", dir, id, got.source, got.late, got.gap, got.heads, len(got.bytes), len(want))
			}
		}
	}
}
