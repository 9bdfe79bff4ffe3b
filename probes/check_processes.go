package probes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// held is what is known of a file: what TLS it holds and whether a tap goes on it.
type held struct {
	Process
	tls    bool
	closed bool // may not be read
}

// processes looks at every file that every process maps, each real file once.
func (c *checker) processes(ctx context.Context, t *Taps) {
	f := newFinder(t)
	if real, err := newRealInodes(); err == nil {
		f.real = real
		defer real.close()
	}
	hidden := closed(c.cfg.Proc)
	files, byReal := make(map[inode]*held), make(map[inode]*held)
	type use struct {
		pid  uint32
		path string
	}
	told := make(map[use]bool)
	eachMapping(c.cfg.Proc, func(m mapping) bool {
		if int(m.pid) == os.Getpid() {
			return true
		}
		file := files[m.seen]
		if file == nil {
			if file = c.look(ctx, f, m, byReal); file == nil {
				return ctx.Err() == nil // gone meanwhile
			}
			if file.closed { // another process may let it be read
				hidden[m.pid] = true
			} else {
				files[m.seen] = file
			}
		}
		if !file.tls || told[use{m.pid, m.path}] {
			return ctx.Err() == nil
		}
		told[use{m.pid, m.path}] = true
		p := file.Process
		p.PID, p.Name, p.Library = m.pid, processName(c.cfg.Proc, m.pid), m.path
		c.Processes = append(c.Processes, p)
		return ctx.Err() == nil
	})
	c.Closed = len(hidden)
}

// look finds out what TLS a mapped file holds, and whether a tap goes on it.
func (c *checker) look(ctx context.Context, f *finder, m mapping, byReal map[inode]*held) *held {
	h := &held{}
	file, err := openMapped(c.cfg.Proc, m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		h.closed = true
		// Most files hold no TLS: only of these is it known without reading them.
		if h.TLS, h.tls = tlsByName(m.path); h.tls {
			h.Reason, h.Detail = "unreadable", c.oneLine(err)
		}
		return h
	}
	defer file.Close()
	target, err := findTarget(file)
	switch {
	case errors.Is(err, errNoTarget):
		k, ok := named(m.path)
		if !ok && mayCarry(m.path, file) {
			if k, ok = inText(file, ctx.Done()); ok {
				target, _, err = findAEAD(file, f.taps.signatures, func(int) error { return ctx.Err() })
			}
		}
		if target == nil || err != nil {
			h.TLS, h.Reason, h.tls = k.name, k.reason, ok
			if k.reason == "stripped" {
				h.Detail = "none of its assembly is known, or not all"
			}
			return h
		}
	case err != nil:
		h.TLS, h.Reason, h.Detail, h.tls = "unknown", "attach_failed", c.oneLine(err), true
		return h
	}
	real, err := f.identify(m, file)
	if known := byReal[real]; err == nil && known != nil {
		return known
	}
	h.TLS, h.tls = target.source.String(), true
	switch err := c.tryTarget(f.taps, file, target); {
	case errors.Is(err, errNotLoaded):
		h.Reason, h.Detail = "not_loaded", "the kernel did not take the tap's programs"
	case err != nil:
		h.Reason, h.Detail = "attach_failed", c.oneLine(err)
	default:
		h.Seen = true
	}
	if err == nil {
		byReal[real] = h
	}
	return h
}

var errNotLoaded = errors.New("not loaded")

// tryTarget puts a target's hooks on the file and takes them off.
func (c *checker) tryTarget(t *Taps, file *os.File, target *target) error {
	for _, h := range target.hooks {
		if t.programs[h.program] == nil {
			return errNotLoaded
		}
	}
	links, err := t.attachFile(file, target)
	return errors.Join(err, closeAll(links))
}

// tlsByName is the TLS of a library that may not be read.
func tlsByName(path string) (string, bool) {
	if k, ok := named(path); ok {
		return k.name, true
	}
	for _, k := range []struct{ prefix, name string }{
		{"libssl.so", "openssl"}, {"libgnutls.so", "gnutls"}, {"libssl3.so", "nss"}, // NSS'; OpenSSL's is libssl.so.3
	} {
		if strings.HasPrefix(filepath.Base(path), k.prefix) {
			return k.name, true
		}
	}
	return "", false
}

// closed returns the processes whose mappings may not be read.
func closed(proc string) map[uint32]bool {
	all := make(map[uint32]bool)
	entries, _ := os.ReadDir(proc)
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		f, err := os.Open(filepath.Join(proc, e.Name(), "maps"))
		if errors.Is(err, fs.ErrPermission) {
			all[uint32(pid)] = true
		}
		f.Close()
	}
	return all
}

func processName(proc string, pid uint32) string {
	dir := filepath.Join(proc, strconv.FormatUint(uint64(pid), 10))
	comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
	}
	return strings.TrimSpace(string(comm))
}
