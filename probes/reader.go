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

// reader turns one ring's records into flow.Data.
type reader struct {
	ring *ringbuf.Reader
	rec  ringbuf.Record

	mu     sync.Mutex // the ring is not asked how full it is when it is closed
	closed bool

	end  sync.Once
	done chan struct{} // closed when the last record was read
}

// nap is how long a reader that has emptied its ring lets records gather. The kernel
// wakes it for a record that nothing unread stands before, and it is the captured
// program's call that pays for that: several times as much as for the record itself.
const nap = time.Millisecond

func (r *reader) read(d *flow.Data) error {
	if r.empty() {
		time.Sleep(nap)
	}
	err := r.ring.ReadInto(&r.rec)
	if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed) {
		r.end.Do(func() { close(r.done) })
		return os.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("read ring: %w", err)
	}
	return parse(r.rec.RawSample, d)
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
