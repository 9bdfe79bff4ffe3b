package probes

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// settings are what the programs are told, in memory that the kernel shares with us. To
// tell it by bpf(2) would cost calls: while that is busy with a map, the kernel runs no
// program of a kprobe or of perf's tracepoints on its CPU, and where it preempts the task
// there, other tasks' calls are missed.
type settings struct {
	*coreSettings // nil before share, and once free
}

// share has the map's memory be the settings.
func (s *settings) share(m *ebpf.Map) error {
	mem, err := unix.MmapPtr(m.FD(), 0, nil, uintptr(os.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("share the settings' memory with the kernel: %w", err)
	}
	s.coreSettings = (*coreSettings)(mem)
	return nil
}

func (s *settings) free() error {
	if s.coreSettings == nil {
		return nil
	}
	err := unix.MunmapPtr(unsafe.Pointer(s.coreSettings), uintptr(os.Getpagesize()))
	s.coreSettings = nil
	return err
}

// verdictSet has the programs look for verdicts anew.
func (s *settings) verdictSet() { atomic.AddUint64(&s.Verdicts, 1) }

func (s *settings) crossEveryHead(on bool) { atomic.StoreUint64(&s.EveryHead, uint64(asFlag(on))) }

// wake has a shard's reader woken, or not.
func (s *settings) wake(shard int, on bool) { atomic.StoreUint32(&s.Waiting[shard], asFlag(on)) }

func asFlag(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}
