package probes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
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
	// named reports whether a process that maps a file is named, once the file, as it is, has
	// been looked into.
	named := func(path string) (is bool) {
		t.Helper()
		m, end := program(t, path, "60")
		defer end() // or the file could not be written to
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f := c.taps.finder
		if !soon(func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			k := f.known[m.seen]
			_, is = f.unseen[m.pid]
			return k != nil && k.as.written == st.ModTime().UnixNano()
		}) {
			t.Fatalf("%s is not looked into", path)
		}
		return is
	}
	copied(t, sleep, at)
	if !named(at) {
		t.Error("a file of Java's name is not named")
	}

	innocent := filepath.Join(dir, "innocent")
	if err := os.Rename(at, innocent); err != nil {
		t.Fatal(err)
	}
	copied(t, sleep, innocent)
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(innocent, later, later); err != nil { // what was written within a tick has one time
		t.Fatal(err)
	}
	if named(innocent) {
		t.Error("named for what its inode held before")
	}

	copied(t, rewritable(t, dir, "program"), innocent)
	id := "on-a-used-inode"
	if out, err := c.onceTapped(innocent, id, waits); err != nil {
		t.Fatalf("%v, %q", err, out)
	}
	if w := c.one(flow.Write, "id="+id); w.source != flow.SourceOpenSSL || !w.whole("POST /v1/x?id="+id, "{}") {
		t.Errorf("%v, %q", w.source, w.bytes)
	}
}

// waits has a program of rewritten.c wait until its input ends.
const waits = "waits"

// onceTapped starts a program that waits, lets it go on when it is tapped, and returns its
// output, or why it failed.
func (c *capture) onceTapped(path string, args ...string) (out string, err error) {
	c.Helper()
	cmd := exec.Command(path, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		c.Fatal(err)
	}
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	tapped := soon(func() bool {
		return slices.ContainsFunc(c.taps.Attached(), func(a Attachment) bool { return slices.Contains(a.Processes, pid) })
	})
	in.Close()
	err = cmd.Wait()
	if !tapped {
		c.Fatalf("%s %v is not tapped: %v, %q", path, args, err, b.Bytes())
	}
	return b.String(), err
}

// soon waits for what will be so, on slow machines too, and reports whether it was.
func soon(is func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// begin starts a program, which may wait for its input to end, and returns its mapping of
// its own file.
func begin(t *testing.T, path string, args ...string) mapping {
	t.Helper()
	m, end := program(t, path, args...)
	t.Cleanup(end)
	return m
}

// program is begin for a program that is to end before the test does.
func program(t *testing.T, path string, args ...string) (m mapping, end func()) {
	t.Helper()
	// By way of another program: whoever starts one waits for its file system, and with this
	// process would wait the one that it holds.
	cmd := exec.Command("env", append([]string{path}, args...)...)
	_, err := cmd.StdinPipe()
	if err = errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	end = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if !soon(func() (ok bool) { m, ok = mappingOf(t, uint32(cmd.Process.Pid), path); return ok }) {
		end()
		t.Fatalf("%s does not run", path)
	}
	return m, end
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
		all = append(all, begin(t, path, "x", waits))
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

// slowLink is a link whose end takes as long as the test wants, but not for ever.
type slowLink struct {
	link.Link
	begun, may chan struct{}
}

func (l slowLink) Close() error {
	close(l.begun)
	select {
	case <-l.may:
	case <-time.After(20 * time.Second):
	}
	return l.Link.Close()
}

// TestAttachBesideDetach: while the probes of one file go, which may take the kernel long,
// another file gets its own.
func TestAttachBesideDetach(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	f, dir := c.taps.finder, t.TempDir()
	of := rewritable(t, dir, "program")
	tap := func(name string) (found *tapped) {
		path := filepath.Join(dir, name)
		copied(t, of, path)
		begin(t, path, "x", waits)
		if !soon(func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, t := range f.files {
				if t.Path == path {
					found = t
				}
			}
			return found != nil
		}) {
			t.Errorf("%s is not tapped", name)
		}
		return found
	}
	going := tap("going")
	if going == nil {
		return
	}
	slow := slowLink{going.links[0], make(chan struct{}), make(chan struct{})}
	f.mu.Lock()
	going.links[0] = slow
	f.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		f.rewritten(going)
	}()
	<-slow.begun
	tap("other")
	select {
	case <-gone:
		t.Error("the other file is tapped only when the probes are gone")
	default:
	}
	close(slow.may)
	<-gone
}
