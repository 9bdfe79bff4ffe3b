package probes

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

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
	r, err := newReader(ring, func(bool) {})
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

// countedRing counts how often somebody looks whether a ring has records.
type countedRing struct {
	ring
	looks atomic.Int32
}

func (c *countedRing) ReadInto(rec *ringbuf.Record) error {
	c.looks.Add(1)
	return c.ring.ReadInto(rec)
}

func (c *countedRing) AvailableBytes() int {
	c.looks.Add(1)
	return c.ring.AvailableBytes()
}

// TestIdleReaderWaits: who finds nothing asks once to be woken, and does not look on.
func TestIdleReaderWaits(t *testing.T) {
	needRoot(t)
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	asked := make(chan bool, 100)
	r, err := newReader(ring, func(on bool) { asked <- on })
	if err != nil {
		t.Fatal(err)
	}
	looked := &countedRing{ring: r.ring}
	r.ring = looked
	ended := make(chan error, 1)
	go func() {
		var d flow.Data
		ended <- r.read(&d)
	}()
	if !<-asked {
		t.Error("asked not to be woken first")
	}
	select {
	case on := <-asked:
		t.Errorf("asked again: %v", on)
	case err := <-ended:
		t.Errorf("ended: %v", err)
	case <-time.After(3 * wait / 2): // once it looks by itself
	}
	if n := looked.looks.Load(); n > 20 { // 7 are right
		t.Errorf("it looked %d times for what is not there", n)
	}
	if err := r.drain(time.Second); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read at the end: %v", err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
