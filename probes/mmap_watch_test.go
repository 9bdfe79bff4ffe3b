package probes

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatchSaysWhyItEnds: without an error only when it is closed.
func TestWatchSaysWhyItEnds(t *testing.T) {
	needRoot(t)
	for _, broken := range []bool{false, true} {
		w, err := watchMappings()
		if err != nil {
			t.Fatal(err)
		}
		if broken {
			unix.Close(w.epoll)
			w.epoll = -1
		} else if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if err := w.run(func(mapping) bool { return true }, func() {}); (err != nil) != broken {
			t.Errorf("broken: %v, ended with %v", broken, err)
		}
		if broken {
			w.free()
		}
	}
}

// TestWatchGoesOn: what one run has left the next one hands on, without being told of it anew.
func TestWatchGoesOn(t *testing.T) {
	needRoot(t)
	w, err := watchMappings()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // maps a program and a library or two
		run(t, nil, "true")
	}
	handed := make(chan int, 1)
	go func() {
		n := 0
		for range 40 {
			w.run(func(mapping) bool { n++; return false }, func() {})
		}
		handed <- n
	}()
	select {
	case n := <-handed:
		if n != 40 {
			t.Errorf("%d mappings in 40 runs", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("what one run has left is not handed on")
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
	if err := w.run(func(mapping) bool { return true }, func() {}); err != nil {
		t.Error(err)
	}
}

// TestMappingOfDeleted: both ways to hear of a mapping tell a file that is gone from its path.
func TestMappingOfDeleted(t *testing.T) {
	event := make([]byte, 72)
	event[48], event[64] = 99, unix.PROT_EXEC
	for end, deleted := range map[string]bool{"": false, " (deleted)": true} {
		heard, ok := parseMmap2(append(event[:72:72], "/lib/a b"+end+"\x00\x00"...))
		if !ok || heard.path != "/lib/a b" || heard.deleted != deleted {
			t.Errorf("heard of: %+v", heard)
		}
		read, ok := parseMapping("400000-6ab000 r-xp 00000000 fe:00 99 /lib/a b" + end)
		if !ok || read.path != "/lib/a b" || read.deleted != deleted {
			t.Errorf("read: %+v", read)
		}
	}
}
