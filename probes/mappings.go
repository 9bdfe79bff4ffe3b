package probes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eachMapping calls f with every file mapped for execution by every process, as long as it
// returns true, and reports whether it always did. Processes that end meanwhile are
// passed over.
func eachMapping(proc string, f func(mapping) bool) bool {
	return eachProcess(proc, func(pid uint32) bool {
		maps, err := os.Open(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "maps"))
		if err != nil {
			return true
		}
		defer maps.Close()
		for s := bufio.NewScanner(maps); s.Scan(); {
			if m, ok := parseMapping(s.Text()); ok {
				m.pid = pid
				if !f(m) {
					return false
				}
			}
		}
		return true
	})
}

// eachProcess calls f with every process, as long as it returns true, and reports whether
// it always did.
func eachProcess(proc string, f func(pid uint32) bool) bool {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return true
	}
	for _, e := range entries {
		if pid, err := strconv.ParseUint(e.Name(), 10, 32); err == nil && !f(uint32(pid)) {
			return false
		}
	}
	return true
}

// deletedSuffix is how the kernel marks the path of a file that is not there any more.
const deletedSuffix = " (deleted)"

// parseMapping reads a line of /proc/PID/maps (proc(5)); false for what is not a
// file mapped for execution.
func parseMapping(line string) (m mapping, ok bool) { return parseMapped(line, "x") }

// parseMapped is parseMapping for what may be done as is said: r, w, or x.
func parseMapped(line, may string) (m mapping, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || len(fields[1]) != 4 || !strings.Contains(fields[1], may) {
		return m, false
	}
	from, to, ok1 := strings.Cut(fields[0], "-")
	major, minor, ok2 := strings.Cut(fields[3], ":")
	if !ok1 || !ok2 {
		return m, false
	}
	var errs [5]error
	var maj, min uint64
	m.start, errs[0] = strconv.ParseUint(from, 16, 64)
	m.end, errs[1] = strconv.ParseUint(to, 16, 64)
	maj, errs[2] = strconv.ParseUint(major, 16, 32)
	min, errs[3] = strconv.ParseUint(minor, 16, 32)
	m.seen.ino, errs[4] = strconv.ParseUint(fields[4], 10, 64)
	m.seen.dev = unix.Mkdev(uint32(maj), uint32(min))
	at := strings.IndexByte(line, '/')
	if errors.Join(errs[:]...) != nil || m.seen.ino == 0 || at < 0 {
		return m, false
	}
	m.path, m.deleted = strings.CutSuffix(line[at:], deletedSuffix)
	return m, true
}

// errReplaced says that a file can only be had by its path, and is not there any more.
var errReplaced = errors.New("deleted or replaced since it was mapped: without CAP_CHECKPOINT_RESTORE it cannot be opened")

// openMapped opens the file behind a mapping: the mapping's own, which needs
// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN and finds deleted files too, else by its
// path in the process's root. It returns errReplaced when that leads to another file or to
// none, and fs.ErrNotExist when there is nothing to be said: the process is gone, or has
// unmapped the file.
func openMapped(proc string, m mapping) (*os.File, error) {
	pid := strconv.FormatUint(uint64(m.pid), 10)
	f, refused := openFile(filepath.Join(proc, pid, "map_files", fmt.Sprintf("%x-%x", m.start, m.end)))
	if refused == nil {
		return f, nil
	}
	f, err := openFile(filepath.Join(proc, pid, "root", m.path))
	replaced := m.deleted
	if err == nil {
		if isMapped(proc, f, m) {
			return f, nil
		}
		f.Close()
		replaced, err = true, fs.ErrNotExist
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open mapped file: %w", err)
	}
	if replaced && errors.Is(refused, fs.ErrPermission) && !strings.HasPrefix(m.path, inMemory) {
		return nil, errReplaced
	}
	return nil, fs.ErrNotExist
}

// inMemory is how the names begin of files that never had a path (memfd_create(2)).
const inMemory = "/memfd:"

// isMapped reports whether a file is the one that is mapped. For some file systems, overlayfs
// and btrfs, the kernel shows other numbers of a mapping than of the file, so the file is then
// mapped here to see which; and of some overlays perf shows others than /proc/PID/maps.
func isMapped(proc string, file *os.File, m mapping) bool {
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return false
	}
	if of, err := statInode(file); err == nil && of == m.seen {
		return true
	}
	b, err := unix.Mmap(int(file.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return false
	}
	defer unix.Munmap(b)
	own := mappedAt("/proc/self/maps", uint64(uintptr(unsafe.Pointer(&b[0]))), "r")
	return own != inode{} && (own == m.seen || own == mappedAt(filepath.Join(proc, strconv.FormatUint(uint64(m.pid), 10), "maps"), m.start, "x"))
}

// mappedAt is the inode that is mapped at an address, as a process's maps show it; zero for none.
func mappedAt(path string, start uint64, may string) inode {
	f, err := os.Open(path)
	if err != nil {
		return inode{}
	}
	defer f.Close()
	at := fmt.Appendf(nil, "%08x-", start)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if bytes.HasPrefix(lines.Bytes(), at) {
			m, _ := parseMapped(lines.Text(), may)
			return m.seen
		}
	}
	return inode{}
}

// still reports whether the file behind a mapping is what it was, as far as can be told.
func still(proc string, m mapping, as fileState) bool {
	pid := strconv.FormatUint(uint64(m.pid), 10)
	ways := []string{filepath.Join("map_files", fmt.Sprintf("%x-%x", m.start, m.end))}
	if !m.deleted {
		ways = append(ways, filepath.Join("root", m.path))
	}
	for _, at := range ways {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, filepath.Join(proc, pid, at), unix.AT_STATX_DONT_SYNC, unix.STATX_SIZE|unix.STATX_MTIME, &st)
		if err == nil {
			return as == fileState{as.inode, int64(st.Size), st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)}
		}
	}
	return true
}

// openFile opens anybody's file to read it, and does not wait for a pipe's other end. os.Open
// would have the runtime poll the file, which asks a FUSE file's server, and this whole
// process would wait for the answer.
func openFile(path string) (*os.File, error) {
	fd, err := -1, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	_ = unix.SetNonblock(fd, false) // or os.NewFile would do the same as os.Open; it cannot fail
	return os.NewFile(uintptr(fd), path), nil
}

func statInode(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, fmt.Errorf("stat mapped file: %w", err)
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}
