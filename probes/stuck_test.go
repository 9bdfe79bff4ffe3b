package probes

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// TestStuckFile: files whose server does not answer hold up neither the start, nor who
// looks for new programs, nor the end; their processes are named; and once the server
// answers they are tapped.
func TestStuckFile(t *testing.T) {
	anyWay(t)
	needRoot(t)
	program := rewritable(t, t.TempDir(), "program")
	names := []string{"before"}
	for i := range 8 {
		names = append(names, fmt.Sprintf("while-%d", i))
	}
	s := fuseProgram(t, program, names...)
	processes := []uint32{begin(t, s.path(names[0]), "x", waits).pid}

	c := &capture{T: t}
	within(t, "start", func() error { var err error; c.store, err = open(Config{Rings: 1}); return err })
	closed := false
	t.Cleanup(func() {
		if !closed && c.store != nil {
			s.answer()
			c.store.close()
		}
	})
	for _, name := range names[1:] {
		processes = append(processes, begin(t, s.path(name), "x", waits).pid)
	}
	if s.kept() == 0 {
		t.Error("nobody waits for the server")
	}
	if out, err := c.onceTapped(program, "beside-stuck-files", waits); err != nil {
		t.Fatalf("%v, %q", err, out)
	}
	if w := c.one(flow.Write, "id=beside-stuck-files"); !w.whole("POST /v1/x?id=beside-stuck-files", "{}") {
		t.Errorf("%q", w.bytes)
	}
	named := func() (n int) {
		for _, u := range c.taps.Unobservable() {
			if slices.Contains(processes, u.PID) && u.Reason == "attach_failed" && u.Detail == errSilent.Error() {
				n++
			}
		}
		return n
	}
	tapped := func() (n int) {
		for _, a := range c.taps.Attached() {
			for _, pid := range a.Processes {
				if slices.Contains(processes, pid) {
					n++
				}
			}
		}
		return n
	}
	eventually := func(what string, is func() int, want int) {
		t.Helper()
		for deadline := time.Now().Add(4 * silence); is() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%d processes are %s, want %d", is(), what, want)
				return
			}
		}
	}
	eventually("named", named, len(processes))
	c.taps.finder.mu.Lock()
	if n := len(c.taps.finder.waiting); n > maxWaitingOn {
		t.Errorf("%d wait for one server, want at most %d", n, maxWaitingOn)
	}
	c.taps.finder.mu.Unlock()
	s.answer()
	eventually("tapped", tapped, len(processes))
	eventually("still named", named, 0)

	again := fuseProgram(t, program, "at-the-end")
	begin(t, again.path("at-the-end"), "x", waits)
	for deadline := time.Now().Add(5 * time.Second); again.kept() == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	closed = within(t, "close", c.store.close)
}

// within reports whether something ended in time.
func within(t *testing.T, what string, do func() error) bool {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return true
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: does not end", what)
		return false
	}
}
