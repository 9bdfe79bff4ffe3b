package probes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// realInodes asks the kernel which inode lies behind a mapping.
type realInodes struct {
	mu   sync.Mutex // one question at a time: the question stands in a map
	objs vmaObjects
}

func newRealInodes() (*realInodes, error) {
	r := &realInodes{}
	if err := loadVmaObjects(&r.objs, nil); err != nil {
		return nil, fmt.Errorf("load iter/task_vma: %w", err)
	}
	// The kernel counts processes as the machine does, and /proc may not.
	own, err := ownMapping()
	if err == nil {
		_, err = r.of(own)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find a mapping of this process: %w", err), r.objs.Close())
	}
	return r, nil
}

// ownMapping returns a mapping of this process.
func ownMapping() (mapping, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return mapping{}, err
	}
	for line := range strings.Lines(string(maps)) {
		if m, ok := parseMapping(strings.TrimSpace(line)); ok {
			m.pid = uint32(os.Getpid())
			return m, nil
		}
	}
	return mapping{}, errNoMapping
}

// walk attaches the iterator to the mappings of one process. Kernels before 6.1 do not
// look at which, and walk through those of all: milliseconds in place of microseconds.
func (r *realInodes) walk(pid uint32) (*link.Iter, error) {
	// union bpf_iter_link_info begins with the task's id, which package link cannot say.
	info := &pid
	attr := struct {
		prog, target, attach, flags uint32
		info                        uint64
		size                        uint32
		_                           uint32
	}{prog: uint32(r.objs.VmaInode.FD()), attach: uint32(ebpf.AttachTraceIter), size: uint32(unsafe.Sizeof(*info))}
	var pin runtime.Pinner
	pin.Pin(info)
	defer pin.Unpin()
	attr.info = uint64(uintptr(unsafe.Pointer(info)))
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil, fmt.Errorf("attach iter/task_vma: %w", errno)
	}
	l, err := link.NewFromFD(int(fd))
	if err != nil {
		return nil, fmt.Errorf("attach iter/task_vma: %w", err)
	}
	return l.(*link.Iter), nil
}

var errNoMapping = errors.New("the mapping is gone")

// of returns the inode of the file that m maps.
func (r *realInodes) of(m mapping) (inode, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.objs.WantedVma.Put(uint32(0), &vmaWanted{Start: m.start, Tgid: m.pid}); err != nil {
		return inode{}, fmt.Errorf("ask for a mapping: %w", err)
	}
	iter, err := r.walk(m.pid)
	if errors.Is(err, unix.ESRCH) {
		return inode{}, errNoMapping
	}
	if err != nil {
		return inode{}, err
	}
	defer iter.Close()
	f, err := iter.Open()
	if err != nil {
		return inode{}, fmt.Errorf("open iterator: %w", err)
	}
	defer f.Close()
	var b [16]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return inode{}, errNoMapping
	}
	return inode{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}, nil
}

func (r *realInodes) close() error { return r.objs.Close() }
