package probes

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// TestOrphans: what was mounted in a namespace that is gone is not kept mounted by probes
// on its programs.
func TestOrphans(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	dir := t.TempDir()
	program, image, at := rewritable(t, dir, "program"), filepath.Join(dir, "image"), filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "truncate", "--size", "16M", image)
	run(t, nil, "mkfs.ext4", "-q", image)
	const script = `mount -o loop "$1" "$2" && cp "$3" "$2/program" && exec "$2/program" in-a-space-of-its-own waits`
	if out, err := c.onceTapped("unshare", "--mount", "sh", "-c", script, "sh", image, at, program); err != nil {
		t.Fatalf("%v, %q", err, out)
	}
	began := time.Now()
	if w := c.one(flow.Write, "id=in-a-space-of-its-own"); w.source != flow.SourceOpenSSL {
		t.Errorf("%v", w.source)
	}
	used := func() bool { return strings.Contains(run(t, nil, "losetup", "--list", "--noheadings"), image) }
	for used() && time.Since(began) < 2*sweepEvery+10*time.Second {
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(began)
	t.Logf("let go after %v", took.Round(10*time.Millisecond))
	if took > sweepEvery*2/3 { // the sweep takes from once to twice its time
		t.Error("the file system stayed mounted without anybody who uses it")
	}
}

// TestSiblingBeginsMeanwhile: a container that begins to map a file while a sweep's scan is
// past it keeps the file tapped when the only one that was there before ends: while the
// process lives, or a child that it has forked, which is not known to map the file.
func TestSiblingBeginsMeanwhile(t *testing.T) {
	for _, name := range []string{"itself", "child"} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			process := func(pid, space string) {
				ns := filepath.Join(proc, pid, "ns")
				at := filepath.Join(proc, space)
				if err := errors.Join(os.MkdirAll(ns, 0o755), os.WriteFile(at, nil, 0o644), os.Link(at, filepath.Join(ns, "mnt"))); err != nil {
					t.Fatal(err)
				}
			}
			end := func(pid string) {
				if err := os.RemoveAll(filepath.Join(proc, pid)); err != nil {
					t.Fatal(err)
				}
			}
			f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: proc}))
			tap := &tapped{real: inode{9, 9}, procs: make(map[uint32]time.Time), spaces: make(map[uint64]time.Time)}
			f.files[tap.real] = tap
			older, younger := mapping{pid: 100, seen: inode{1, 5}}, mapping{pid: 200, seen: inode{2, 5}}
			process("100", "older")
			f.learn(older, found{tap: tap})

			began := time.Now()
			process("200", "younger")
			f.learn(younger, found{tap: tap})
			left := "200"
			if name == "child" {
				left = "201"
				process(left, "younger")
				end("200")
			}
			f.swept(users{older.seen: {older.pid: {}}}, began)
			end("100")
			if gone := f.orphans(); len(gone) != 0 {
				t.Error("the taps are taken off")
			}
			end(left)
			if gone := f.orphans(); len(gone) != 1 {
				t.Error("the taps stay when all have ended")
			}
		})
	}
}
