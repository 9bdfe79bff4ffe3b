package probes

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// writeWatch hears of writes to files that are tapped. A probe keeps the instruction
// that stood where it stands: when the file is written to in place, what runs there next
// is not what the file says, and a program crashes. So probes go as soon as the writing
// begins; the kernel takes some 100 ms for it, and what is started before may crash.
type writeWatch struct {
	inotify *os.File
	mu      sync.Mutex
	fd      int               // inotify's; -1 when it is closed
	files   map[int32]*tapped // by watch descriptor
}

func watchWrites() (*writeWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	return &writeWatch{inotify: os.NewFile(uintptr(fd), "inotify"), fd: fd, files: make(map[int32]*tapped)}, nil
}

// add watches the open file, which is t's.
func (w *writeWatch) add(file *os.File, t *tapped) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A truncation is a write, too.
	wd, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.IN_MODIFY)
	if err != nil {
		return fmt.Errorf("watch for writes: %w", err)
	}
	w.files[int32(wd)], t.writes = t, int32(wd)
	return nil
}

func (w *writeWatch) remove(t *tapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files[t.writes] == t {
		delete(w.files, t.writes)
		_, _ = unix.InotifyRmWatch(w.fd, uint32(t.writes)) // gone already with the file
	}
}

// run calls written with every file that is written to, until close. When the kernel had
// no room for some, these are all that are watched.
func (w *writeWatch) run(written func(*tapped)) error {
	buf := make([]byte, 4096)
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return fmt.Errorf("read inotify: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
			for _, t := range w.of(wd, mask) {
				written(t)
			}
		}
	}
}

func (w *writeWatch) of(wd int32, mask uint32) (files []*tapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, t := range w.files {
		if k == wd && mask&unix.IN_MODIFY != 0 || mask&unix.IN_Q_OVERFLOW != 0 {
			files = append(files, t)
		}
	}
	return files
}

// close ends run.
func (w *writeWatch) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fd = -1
	return w.inotify.Close()
}
