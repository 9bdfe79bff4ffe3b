package probes

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A probe keeps the file system of its file mounted. With the last process of a container
// its mounts go, and with them its volumes', which are taken off the machine next: so a
// file that was mapped only in mount namespaces that are gone is let go at once, not with
// the sweep.

// orphansEvery is how often that is looked for.
const orphansEvery = time.Second

// mountSpace returns the mount namespace of a process; 0 when it may not be known.
func (f *finder) mountSpace(pid uint32) uint64 {
	st, err := os.Stat(filepath.Join(f.taps.cfg.Proc, strconv.FormatUint(uint64(pid), 10), "ns/mnt"))
	if err != nil {
		return 0
	}
	return st.Sys().(*syscall.Stat_t).Ino
}

// orphans forgets the files that were mapped in mount namespaces only that are gone, and
// returns them to be detached from.
func (f *finder) orphans() (gone []*tapped) {
	var idle []*tapped
	f.mu.Lock()
	for _, t := range f.files {
		if !t.anywhere() && !f.inUse(t) {
			idle = append(idle, t)
		}
	}
	f.mu.Unlock()
	if idle == nil {
		return nil
	}
	// A child that forked is in its parent's, and not known to map the file.
	there := make(map[uint64]bool)
	eachProcess(f.taps.cfg.Proc, func(pid uint32) bool {
		there[f.mountSpace(pid)] = true
		return true
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range idle {
		used := t.anywhere() || f.inUse(t) // meanwhile
		for space := range t.spaces {
			used = used || there[space]
		}
		if !used && f.release(t) {
			gone = append(gone, t)
		}
	}
	return gone
}

// anywhere reports whether a file was mapped in a mount namespace that is not known.
func (t *tapped) anywhere() bool {
	_, unknown := t.spaces[0]
	return unknown
}

// inUse reports whether a process that is known to map a file is there, and forgets those
// that are not. The caller holds the lock.
func (f *finder) inUse(t *tapped) bool {
	for pid := range t.procs {
		if f.mountSpace(pid) != 0 {
			return true
		}
		delete(t.procs, pid)
	}
	return false
}

// respace keeps of a file's mount namespaces those of the processes that map it, and what was
// noted since the scan began. The caller holds the lock.
func (f *finder) respace(t *tapped, began time.Time) {
	maps.DeleteFunc(t.spaces, func(_ uint64, noted time.Time) bool { return noted.Before(began) })
	for pid := range t.procs {
		if space := f.mountSpace(pid); space != 0 {
			t.spaces[space] = began
		}
	}
}
