package probes

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/flow"
)

// rewritable builds testdata/rewritten.c, which has an OpenSSL of its own, to dir/name.
func rewritable(t *testing.T, dir, name string, flags ...string) string {
	t.Helper()
	to := filepath.Join(dir, name)
	if *clients != "" {
		copied(t, filepath.Join(*clients, "rewritten"+strings.Join(flags, "")), to)
		return to
	}
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

// begin starts a program and returns its mapping of its own file.
func begin(t *testing.T, path string, args ...string) mapping {
	t.Helper()
	// By way of another program: whoever starts one waits for its file system, and with this
	// process would wait the one that it holds.
	cmd := exec.Command("env", append([]string{path}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if m, ok := mappingOf(t, uint32(cmd.Process.Pid), path); ok {
			return m
		}
	}
	t.Fatalf("%s does not run", path)
	return mapping{}
}

// mappingOf returns a process's mapping of a file.
func mappingOf(t *testing.T, pid uint32, path string) (m mapping, ok bool) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if m, ok = parseMapping(strings.TrimSpace(line)); ok && m.path == path {
			m.pid = pid
			return m, true
		}
	}
	return m, false
}

// idle is a finder that has nothing to attach with, and finds what it is shown.
func idle() *finder {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: "/proc"}))
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// TestFailedOnce: a file that cannot be tapped is tried once a sweep, not by every process.
func TestFailedOnce(t *testing.T) {
	needRoot(t)
	f := idle()
	path := rewritable(t, t.TempDir(), "program")
	var all []mapping
	for range 3 {
		all = append(all, begin(t, path, "x", "60000000"))
	}
	opened, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(opened)
	if _, err := unix.InotifyAddWatch(opened, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	events := func() (n int) {
		buf := make([]byte, 4096)
		for {
			got, err := unix.Read(opened, buf)
			if err != nil {
				return n
			}
			n += got / unix.SizeofInotifyEvent
		}
	}
	f.mapped(all[0], false)
	once := events()
	if once == 0 {
		t.Fatal("not looked into")
	}
	for _, m := range all {
		f.mapped(m, false)
		if u := f.unseen[m.pid]; u.Reason != "attach_failed" {
			t.Errorf("named as %+v", u)
		}
	}
	if n := events(); n > 0 {
		t.Errorf("opened %d times more", n)
	}
	f.swept(users{all[0].seen: {all[0].pid: {}}}, time.Now())
	f.mapped(all[0], false)
	if n := events(); n != once {
		t.Errorf("opened %d times after a sweep, want %d", n, once)
	}
}

// TestSuspectFailed: a stripped program that could not be tapped is tried again.
func TestSuspectFailed(t *testing.T) {
	needRoot(t)
	f := idle()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "stripped")
	copied(t, sleep, path)
	if err := os.Truncate(path, minProgram); err != nil { // of smaller ones none holds a stack
		t.Fatal(err)
	}
	m := begin(t, path, "60")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen, err := statInode(file)
	if err != nil {
		t.Fatal(err)
	}
	as, err := stateOf(file, seen)
	if err != nil {
		t.Fatal(err)
	}
	// What it would be found to hold, and the kernel has taken no program for.
	f.examined.remember(examination{tls: true, target: &target{hooks: []hook{{program: "none"}}}}, build{}, as)
	for range 2 {
		f.mapped(m, false)
		select {
		case s := <-f.suspect:
			f.examine(s)
			s.file.Close()
		default:
			t.Fatal("not examined")
		}
		if u := f.unseen[m.pid]; u.Reason != "attach_failed" {
			t.Errorf("named as %+v", u)
		}
		f.swept(users{m.seen: {m.pid: {}}}, time.Now())
	}
}

// TestForgotten: of a file that is tapped no more is remembered than who maps it, however many
// mounts have shown it; and of all files no more than there is room for.
func TestForgotten(t *testing.T) {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()}))
	tap := &tapped{real: inode{9, 9}, procs: make(map[uint32]time.Time), spaces: make(map[uint64]time.Time)}
	f.files[tap.real] = tap
	pod := func(n int) mapping { return mapping{pid: uint32(n), seen: inode{uint64(n), 5}, path: "/lib"} }
	stays := pod(1)
	f.learn(stays, found{tap: tap})
	for n := range 10 {
		f.learn(pod(2+n), found{tap: tap})
	}
	began := time.Now()
	late := pod(20)
	f.learn(late, found{tap: tap})
	f.swept(users{stays.seen: {stays.pid: {}}}, began)
	if len(f.known) != 2 || f.known[stays.seen] == nil || f.known[late.seen] == nil || len(tap.procs) != 2 {
		t.Errorf("%d entries are left of two mounts that are used, and %d processes of two", len(f.known), len(tap.procs))
	}
	if gone := f.swept(users{}, time.Now()); len(gone) != 0 || len(f.known) == 0 {
		t.Error("what the file was is forgotten while its taps stand")
	}
	if gone := f.swept(users{}, time.Now()); len(gone) != 1 || len(f.known) != 0 {
		t.Errorf("%d files are let go of, and %d entries are left", len(gone), len(f.known))
	}

	f.files[tap.real], tap.released = tap, false
	for n := range maxKnown + maxKnown/2 {
		f.learn(pod(2+n), found{tap: tap})
		if len(f.known) > maxKnown {
			t.Fatalf("%d files are remembered", len(f.known))
		}
	}
}

// TestAttachBesideDetach: while the probes of one file go, which takes the kernel long,
// another file gets its own.
func TestAttachBesideDetach(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	f, dir := c.taps.finder, t.TempDir()
	program := rewritable(t, dir, "program")
	copy := func(name string) string {
		to := filepath.Join(dir, name)
		copied(t, program, to)
		return to
	}
	tap := func(path string) (found *tapped) {
		begin(t, path, "x", "60000000")
		for deadline := time.Now().Add(5 * time.Second); found == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			f.mu.Lock()
			for _, t := range f.files {
				if t.Path == path {
					found = t
				}
			}
			f.mu.Unlock()
		}
		if found == nil {
			t.Fatalf("%s is not tapped", path)
		}
		return found
	}
	const rounds = 5
	beside := 0
	for i := range rounds {
		going, other := tap(copy(fmt.Sprintf("going-%d", i))), copy(fmt.Sprintf("other-%d", i))
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			f.rewritten(going)
		}()
		for released := false; !released; {
			f.mu.Lock()
			released = going.released
			f.mu.Unlock()
		}
		tap(other)
		select {
		case <-gone:
		default:
			beside++
		}
		<-gone
	}
	if beside == 0 {
		t.Errorf("in none of %d rounds was the other file tapped first", rounds)
	}
	t.Logf("in %d of %d rounds the other file was tapped first", beside, rounds)
}
