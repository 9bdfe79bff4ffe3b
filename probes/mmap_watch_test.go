package probes

import (
	"testing"

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
		if err := w.run(func(mapping) {}, func() {}); (err != nil) != broken {
			t.Errorf("broken: %v, ended with %v", broken, err)
		}
		if broken {
			w.free()
		}
	}
}
