package probes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmapWatch hears of every new mapping on the machine: PERF_RECORD_MMAP2 of a dummy
// software event on each CPU. It needs no kprobes and sees dlopen. What starts on a CPU
// that came online later is found by the sweep.
type mmapWatch struct {
	rings []mmapRing
	epoll int
	stop  int // eventfd
}

type mmapRing struct {
	fd  int
	mem []byte // a page that describes, and mmapPages of records
	buf []byte // of a record that wraps
}

const mmapPages = 64 // a power of two

// watchMappings begins to listen.
func watchMappings() (*mmapWatch, error) {
	w := &mmapWatch{epoll: -1, stop: -1}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: unix.PERF_COUNT_SW_DUMMY,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits:   unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitWatermark,
		Wakeup: 1, // byte
	}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("make eventfd: %w", err), w.free())
	}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, w.stop, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch eventfd: %w", err), w.free())
	}
	for _, cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open perf event on CPU %d: %w", cpu, err), w.free())
		}
		mem, err := unix.Mmap(fd, 0, (1+mmapPages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			unix.Close(fd)
			return nil, errors.Join(fmt.Errorf("map perf ring: %w", err), w.free())
		}
		w.rings = append(w.rings, mmapRing{fd: fd, mem: mem})
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(w.rings) - 1)}); err != nil {
			return nil, errors.Join(fmt.Errorf("watch perf ring: %w", err), w.free())
		}
	}
	return w, nil
}

// onlineCPUs reads a list such as 0-3,5.
func onlineCPUs() (cpus []int, err error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("read online CPUs: %w", err)
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		lo, err1 := strconv.Atoi(from)
		hi, err2 := strconv.Atoi(to)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read online CPUs: %w", err)
		}
		for c := lo; c <= hi; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}

// hurried is the nice value of the thread that looks at new mappings.
const hurried = -10

// run hands every new executable mapping to f until close, until it cannot go on, or until
// f returns false: run may be called anew then, and before f returns. When the kernel had
// no room for some, rescan is called.
func (w *mmapWatch) run(f func(mapping) bool, rescan func()) error {
	// A program's first request is milliseconds away: on a busy machine, too, this goes
	// first, where CAP_SYS_NICE or the limits allow it. There is little to do, and seldom.
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), hurried)
	for i := range w.rings { // what was told of before, it is not told of again
		if !w.rings[i].read(f, rescan) {
			return nil
		}
	}
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for mappings: %w", err)
		}
		for _, e := range events[:n] {
			if e.Fd < 0 {
				return w.free()
			}
			if !w.rings[e.Fd].read(f, rescan) {
				return nil
			}
		}
	}
}

// close ends run, which frees everything.
func (w *mmapWatch) close() error {
	_, err := unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

func (w *mmapWatch) free() error {
	var errs []error
	for _, r := range w.rings {
		errs = append(errs, unix.Munmap(r.mem), unix.Close(r.fd))
	}
	for _, fd := range []int{w.stop, w.epoll} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// read takes all records of the ring (perf_event_open(2), "MMAP layout"), as long as f
// returns true, and reports whether it always did.
func (r *mmapRing) read(f func(mapping) bool, rescan func()) bool {
	page := os.Getpagesize()
	meta := (*unix.PerfEventMmapPage)(unsafe.Pointer(&r.mem[0]))
	data := r.mem[page:]
	head, tail := atomic.LoadUint64(&meta.Data_head), meta.Data_tail
	for tail < head {
		at := tail % uint64(len(data))
		size := uint64(binary.NativeEndian.Uint16(data[at+6:])) // records are aligned to 8 bytes: a header never wraps
		if size < 8 {
			atomic.StoreUint64(&meta.Data_tail, head)
			break
		}
		rec := data[at:min(at+size, uint64(len(data)))]
		if uint64(len(rec)) < size {
			r.buf = append(append(r.buf[:0], rec...), data[:size-uint64(len(rec))]...)
			rec = r.buf
		}
		kind := binary.NativeEndian.Uint32(rec)
		m, ok := parseMmap2(rec)
		tail += size
		atomic.StoreUint64(&meta.Data_tail, tail)
		switch {
		case kind == unix.PERF_RECORD_LOST:
			rescan()
		case kind == unix.PERF_RECORD_MMAP2 && ok && !f(m):
			return false
		}
	}
	return true
}

// parseMmap2 reads a PERF_RECORD_MMAP2: header, pid, tid, addr, len, pgoff, maj, min,
// ino, ino_generation, prot, flags, filename.
func parseMmap2(b []byte) (m mapping, ok bool) {
	const fixed = 8 + 8 + 24 + 8 + 16 + 8
	if len(b) < fixed {
		return m, false
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	if u32(64)&unix.PROT_EXEC == 0 {
		return m, false
	}
	m.pid = u32(8)
	m.start, m.end = u64(16), u64(16)+u64(24)
	m.seen = inode{unix.Mkdev(u32(40), u32(44)), u64(48)}
	name, _, _ := bytes.Cut(b[fixed:], []byte{0})
	m.path, m.deleted = strings.CutSuffix(string(name), deletedSuffix)
	return m, m.seen.ino != 0 && strings.HasPrefix(m.path, "/")
}
