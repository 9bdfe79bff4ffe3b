package probes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// writeWatch hears of writes to files that are tapped. A probe keeps the instruction
// that stood where it stands: when the file is written to in place, what runs there next
// is not what the file says, and a program crashes. So probes have to go before the file
// is started again, and the kernel takes some 100 ms to take them off.
//
// A read lease makes whoever opens the file for writing wait until the probes are gone.
// The kernel gives one to the file's owner. Writes to other files are heard of by inotify
// as they begin: what is started within these 100 ms may crash.
type writeWatch struct {
	inotify *os.File
	broken  chan os.Signal // there are leases to give back

	mu    sync.Mutex
	fd    int               // inotify's; -1 when it is closed
	files map[int32]*tapped // by watch descriptor
}

func watchWrites() (*writeWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	w := &writeWatch{
		inotify: os.NewFile(uintptr(fd), "inotify"), broken: make(chan os.Signal, 1),
		fd: fd, files: make(map[int32]*tapped),
	}
	signal.Notify(w.broken, unix.SIGIO)
	return w, nil
}

// add watches the open file, which is t's. It returns errWritten when somebody waits to
// write to it already. The file may keep it waiting, and so it keeps nobody else.
func (w *writeWatch) add(file *os.File, t *tapped) error {
	w.mu.Lock()
	fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD_CLOEXEC, 0)
	w.mu.Unlock()
	if err != nil {
		return fmt.Errorf("watch for writes: %w", err)
	}
	defer unix.Close(fd)
	path := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	// A truncation is a write, too.
	wd, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
	if err != nil {
		return fmt.Errorf("watch for writes: %w", err)
	}
	lease, err := takeLease(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[int32(wd)], t.writes, t.lease = t, int32(wd), lease
	if err == nil && asked(lease) { // before it was known whose it is
		err = errWritten
	}
	return err
}

// asked reports whether a lease is asked back.
func asked(lease *os.File) bool {
	is, err := unix.FcntlInt(lease.Fd(), unix.F_GETLEASE, 0)
	return err == nil && is == unix.F_UNLCK
}

func takeLease(path string) (*os.File, error) {
	file, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("open for a lease: %w", err)
	}
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil { // else this thread is told that it is asked back, which may have ended by then
		_, err = unix.FcntlInt(file.Fd(), unix.F_SETOWN, os.Getpid())
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("take a lease: %w", err)
	}
	return file, nil
}

// remove ends the watching. The lease is given back by closing it, when the probes are gone.
func (w *writeWatch) remove(t *tapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files[t.writes] == t {
		delete(w.files, t.writes)
		_, _ = unix.InotifyRmWatch(w.fd, uint32(t.writes)) // gone already with the file
	}
}

// give calls written with every file whose lease is asked back, until close.
func (w *writeWatch) give(written func(*tapped)) {
	for range w.broken {
		for _, t := range w.wanted() {
			written(t)
		}
	}
}

// run calls written with every file that is written to, until close or until it cannot go
// on. When the kernel had no room for some, these are all that are watched.
func (w *writeWatch) run(written func(*tapped)) error {
	buf := make([]byte, 4096)
	for {
		n, err := w.inotify.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
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

// wanted returns the files whose leases are asked back.
func (w *writeWatch) wanted() (files []*tapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.files {
		if t.lease != nil && asked(t.lease) {
			files = append(files, t)
		}
	}
	return files
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

// close ends give and run.
func (w *writeWatch) close() error {
	signal.Stop(w.broken)
	close(w.broken)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fd = -1
	return w.inotify.Close()
}
