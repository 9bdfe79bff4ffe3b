package probes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// TestWritten: a tapped program is written anew in place and started at once. Where the
// probes stood is other code by then, which runs as it was written; and it is tapped.
func TestWritten(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	var versions [2][]byte
	for i, flag := range []string{"-DFIRST", "-DSECOND"} {
		var err error
		if versions[i], err = os.ReadFile(rewritable(t, dir, flag, flag)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 8 {
		id := fmt.Sprintf("written-%d-%d", time.Now().UnixNano(), round)
		leased, heard := round < 4, round < 6
		old := c.taps.finder.leave(program, leased, heard)
		if err := os.WriteFile(program, versions[round%2], 0o755); err != nil {
			t.Fatal(err)
		}
		if heard && !leased { // the kernel takes some 100 ms to take probes off
			c.taps.finder.letGo(t, old, nil)
		}
		if heard {
			if out, err := exec.Command(program, id+"-at-once").CombinedOutput(); err != nil || string(out) != "counted to 2000\n" {
				t.Errorf("round %d, at once: %v, %q", round, err, out)
			}
		} else { // shows that the file is another, if it lives until that is looked at, and may suffer
			c.taps.finder.letGo(t, old, func() { exec.Command(program, id+"-unheard").Run() })
		}
		id += "-once-tapped"
		if out, err := c.onceTapped(program, id, waits); err != nil || out != "counted to 2000\n" {
			t.Errorf("round %d: %v, %q", round, err, out)
		}
		if t.Failed() {
			continue
		}
		if w := c.one(flow.Write, "id="+id); w.source != flow.SourceOpenSSL || !w.whole("POST /v1/x?id="+id, "{}") {
			t.Errorf("round %d: %v, %q", round, w.source, w.bytes)
		}
		if r := c.one(flow.Read, "answer to "+id); !r.whole("HTTP/1.1 200 OK", "answer to "+id) {
			t.Errorf("round %d: %q", round, r.bytes)
		}
	}
}

// TestWriteWatchSaysWhyItEnds: at once, and without an error only when it is closed.
func TestWriteWatchSaysWhyItEnds(t *testing.T) {
	for _, broken := range []bool{false, true} {
		w, err := watchWrites()
		if err != nil {
			t.Fatal(err)
		}
		if broken { // a directory is not to be read like this
			w.inotify.Close()
			if w.inotify, err = os.Open(t.TempDir()); err != nil {
				t.Fatal(err)
			}
		} else if err := w.close(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- w.run(func(*tapped) {}) }()
		select {
		case err := <-ended:
			if (err != nil) != broken {
				t.Errorf("broken: %v, ended with %v", broken, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("broken: %v, does not end", broken)
		}
		if broken {
			w.close()
		}
	}
}

// leave takes the leases of a tapped file, as where it is another user's, or has the finder
// not hear of writes to it, as where there is no inotify. It returns the file's taps.
func (f *finder) leave(path string, lease, heard bool) (taps []*tapped) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.files {
		if t.Path != path {
			continue
		}
		taps = append(taps, t)
		if !lease {
			t.lease.Close()
		}
		if !heard {
			f.written.remove(t)
		}
	}
	return taps
}

// letGo waits until taps are off their file, and does something meanwhile, again and again.
func (f *finder) letGo(t *testing.T, taps []*tapped, meanwhile func()) {
	t.Helper()
	released := func(tap *tapped) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return tap.released
	}
	for _, tap := range taps {
		for end := time.Now().Add(20 * time.Second); !released(tap); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the taps stay on a file that was written to")
			}
			if meanwhile != nil {
				meanwhile()
			}
		}
		f.alone(tap.real)() // once who has released them is done
	}
}

// TestLeaseOutlivesItsThread: that a file is to be written to is heard of, too, when the
// thread that has begun to watch it is gone.
func TestLeaseOutlivesItsThread(t *testing.T) {
	needRoot(t)
	w, err := watchWrites()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if file, err = os.Open(file.Name()); err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tap, added := &tapped{}, make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with this
		added <- w.add(file, tap)
	}()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	asked := make(chan *tapped, 1)
	go w.give(func(t *tapped) { asked <- t })
	write := exec.Command("sh", "-c", "echo >>"+file.Name())
	if err := write.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(5 * time.Second):
		t.Error("nothing was heard")
	}
	tap.lease.Close()
	if err := write.Wait(); err != nil {
		t.Error(err)
	}
}
