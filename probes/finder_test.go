package probes

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// rewritable builds testdata/rewritten.c, which has an OpenSSL of its own, to dir/name.
func rewritable(t *testing.T, dir, name string, flags ...string) string {
	t.Helper()
	to := filepath.Join(dir, name)
	run(t, nil, "gcc", append(flags, "-O1", "-Wall", "-Werror", "-fno-toplevel-reorder", "-o", to, "testdata/rewritten.c")...)
	return to
}

// copied writes the file at from into the file at to, whose inode stays.
func copied(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestInodeReused: what was found in a file says nothing of the next one on its inode.
func TestInodeReused(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	dir := t.TempDir()
	at := filepath.Join(dir, "libjvm.so") // is taken for Java's by its name, as a program too
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	named := func(pid int) bool {
		for _, u := range c.taps.Unobservable() {
			if u.PID == uint32(pid) {
				return true
			}
		}
		return false
	}
	sleeper := func(path string) *exec.Cmd {
		cmd := exec.Command(path, "1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	copied(t, sleep, at)
	java := sleeper(at)
	for deadline := time.Now().Add(900 * time.Millisecond); !named(java.Process.Pid) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if !named(java.Process.Pid) {
		t.Error("a file of Java's name is not named")
	}
	java.Wait()

	innocent := filepath.Join(dir, "innocent")
	if err := os.Rename(at, innocent); err != nil {
		t.Fatal(err)
	}
	copied(t, sleep, innocent)
	plain := sleeper(innocent)
	time.Sleep(500 * time.Millisecond)
	if named(plain.Process.Pid) {
		t.Error("named for what its inode held before")
	}
	plain.Wait()

	copied(t, rewritable(t, dir, "program"), innocent)
	id := "on-a-used-inode"
	run(t, nil, innocent, id, "500000")
	if w := c.one(flow.Write, "id="+id); w.source != flow.SourceOpenSSL || !w.whole("POST /v1/x?id="+id, "{}") {
		t.Errorf("%v, %q", w.source, w.bytes)
	}
}
