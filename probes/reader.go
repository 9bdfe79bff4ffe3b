package probes

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/tollwire/tollwire/flow"
)

const hdrSize = int(unsafe.Sizeof(coreHdr{}))

// ring is a *ringbuf.Reader.
type ring interface {
	ReadInto(*ringbuf.Record) error
	SetDeadline(time.Time)
	AvailableBytes() int
	Flush() error
	Close() error
}

// reader turns one ring's records into flow.Data.
type reader struct {
	ring ring
	rec  ringbuf.Record

	wake  func(on bool) // whether the kernel is to wake this reader
	waits bool          // it was told to

	mu     sync.Mutex // the ring is not asked how full it is when it is closed
	closed bool

	end  sync.Once
	done chan struct{} // closed when the last record was read
}

// To wake a reader costs the captured program's call several times what the record does.
// So one that has emptied its ring looks again after a nap, and goes on doing so while it
// finds anything; only when it does not, it waits to be woken. It looks by itself then,
// too, should a processor have seen the wish too late.
const (
	nap  = time.Millisecond
	wait = time.Second
)

// past is a deadline for who does not wait.
var past = time.Unix(1, 0)

func (r *reader) read(d *flow.Data) error {
	for {
		r.rest()
		err := r.ring.ReadInto(&r.rec)
		switch {
		case err == nil:
			return parse(r.rec.RawSample, d)
		case errors.Is(err, os.ErrDeadlineExceeded): // nothing yet
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
			r.end.Do(func() { close(r.done) })
			return os.ErrClosed
		default:
			return fmt.Errorf("read ring: %w", err)
		}
	}
}

// rest decides how the next read waits.
func (r *reader) rest() {
	if !r.waits {
		if !r.empty() {
			return
		}
		time.Sleep(nap)
	}
	if empty := r.empty(); empty != r.waits {
		r.wake(empty)
		r.waits = empty
	}
	if r.waits && r.empty() { // nothing came before the kernel knew
		r.ring.SetDeadline(time.Now().Add(wait))
	} else {
		r.ring.SetDeadline(past)
	}
}

// drain waits until the consumer has read what is in the ring, or for d.
func (r *reader) drain(d time.Duration) error {
	if err := r.ring.Flush(); err != nil {
		return fmt.Errorf("flush ring: %w", err)
	}
	select {
	case <-r.done:
	case <-time.After(d):
	}
	return nil
}

func (r *reader) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.closed && r.ring.AvailableBytes() == 0
}

func (r *reader) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.ring.Close()
}

// parse reads one record of the ring: struct hdr of bpf/wire.h and its payload.
func parse(raw []byte, d *flow.Data) error {
	if len(raw) < hdrSize {
		return fmt.Errorf("record of %d bytes: shorter than its header", len(raw))
	}
	var h coreHdr
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), hdrSize), raw)
	if int(h.Len) > len(raw)-hdrSize {
		return fmt.Errorf("record of %d bytes: its header says %d", len(raw)-hdrSize, h.Len)
	}
	*d = flow.Data{
		Kind:      flow.Kind(h.Kind),
		Conn:      flow.Conn{Proc: flow.Proc{PID: h.Pid, Start: h.Start}, Key: h.Key, Gen: h.Gen},
		Source:    flow.Source(h.Source),
		Dir:       flow.Dir(h.Dir),
		TID:       h.Tid,
		Cgroup:    h.Cgroup,
		Time:      flow.Time(h.Time),
		Pos:       h.Pos,
		Gap:       h.Gap,
		GapReason: flow.GapReason(h.GapReason),
		Exchange:  h.Exchange,
		Head:      h.Flags&uint8(coreHdrFlagsHDR_HEAD) != 0,
		Late:      h.Flags&uint8(coreHdrFlagsHDR_LATE) != 0,
		Payload:   raw[hdrSize : hdrSize+int(h.Len)],
	}
	switch h.Family {
	case 2: // AF_INET
		d.Peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte(h.Addr[:4])), h.Port)
	case 10: // AF_INET6
		d.Peer = netip.AddrPortFrom(netip.AddrFrom16(h.Addr).Unmap(), h.Port)
	}
	return nil
}
