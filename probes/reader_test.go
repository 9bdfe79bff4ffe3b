package probes

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/flow"
)

// TestReadAfterClose: who reads more slowly than Close waits for finds the end, too.
func TestReadAfterClose(t *testing.T) {
	needRoot(t)
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	r, err := newReader(ring, func(bool) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	var d flow.Data
	if err := r.read(&d); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}
