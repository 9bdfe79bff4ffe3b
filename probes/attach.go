package probes

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sync/errgroup"

	"github.com/tollwire/tollwire/flow"
)

// tapped is a file that a tap stands on.
type tapped struct {
	Attachment
	real     inode
	links    []link.Link
	procs    map[uint32]time.Time // that map it, and when that was last noted
	spaces   map[uint64]time.Time // mount namespaces of those, and of those before; 0: one that is not known
	unused   int                  // sweeps in a row in which nobody mapped it
	writes   int32                // watch descriptor
	lease    *os.File             // nil where there is none
	released bool
}

// attach puts the taps on the file behind a mapping, or finds that they stand there. The
// target was found in the file as it was.
func (f *finder) attach(m mapping, file *os.File, target *target, as fileState) (_ *tapped, err error) {
	real, err := f.identify(m, file)
	if err != nil {
		return nil, err
	}
	defer f.alone(real)() // the scan, the watch and the sweep may meet at one file
	f.mu.Lock()
	t := f.files[real]
	f.mu.Unlock()
	if t != nil {
		return t, nil
	}
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	t = &tapped{
		Attachment: Attachment{Source: target.source, Path: m.path, Inode: real.ino, Device: real.dev, Since: time.Now()},
		real:       real,
		procs:      make(map[uint32]time.Time),
		spaces:     make(map[uint64]time.Time),
	}
	if target.ciphertext {
		if err := f.taps.followSockets(); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			f.unwatch(t)
			err = errors.Join(err, detach(t))
		}
	}()
	if f.written != nil {
		if err := f.written.add(file, t); errors.Is(err, errWritten) {
			return nil, err
		} else if err != nil {
			f.log.Debug("who writes to it is not held off", "path", m.path, "err", err)
		}
	}
	// What is written from here on is heard of, and what was written before shows.
	if now, err := stateOf(file, m.seen); err != nil || now != as {
		return nil, cmp.Or(err, errWritten)
	}
	if t.links, err = f.taps.attachFile(file, target); err != nil {
		return nil, err
	}
	for _, h := range target.hooks {
		for _, s := range h.sites {
			t.Functions = append(t.Functions, s.name)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ctx.Err(); err != nil { // and stop waits for nobody whom a file keeps
		return nil, err
	}
	f.files[real] = t
	return t, nil
}

// attachFile puts a target's hooks on the open file.
func (t *Taps) attachFile(file *os.File, target *target) (links []link.Link, err error) {
	defer func() {
		if err != nil {
			for _, l := range links {
				l.Close()
			}
			links = nil
		}
	}()
	ex, err := link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open executable: %w", err)
	}
	hooks := target.hooks
	if !target.ciphertext { // returns first: a call that is seen to begin is seen to end
		hooks = slices.SortedStableFunc(slices.Values(hooks), func(a, b hook) int { return btoi(b.ret) - btoi(a.ret) })
	}
	for _, h := range hooks {
		prog := t.programs[h.program]
		if prog == nil {
			return links, fmt.Errorf("%s: the kernel refused its program", h.program)
		}
		var entries, returns link.UprobeMultiOptions
		for _, s := range h.sites {
			p := s.probe(h.ret, t.cookies)
			to := &entries
			if p.ret {
				to = &returns
			}
			to.Addresses = append(to.Addresses, s.start+p.at)
			to.Cookies = append(to.Cookies, uint64(h.tell)<<32|uint64(p.grown))
		}
		for _, k := range []struct {
			*link.UprobeMultiOptions
			multi func([]string, *ebpf.Program, *link.UprobeMultiOptions) (link.Link, error)
			one   func(string, *ebpf.Program, *link.UprobeOptions) (link.Link, error)
		}{{&entries, ex.UprobeMulti, ex.Uprobe}, {&returns, ex.UretprobeMulti, ex.Uretprobe}} {
			if t.multi && len(k.Addresses) > 0 {
				l, err := k.multi(nil, prog, k.UprobeMultiOptions)
				if err != nil {
					return links, fmt.Errorf("attach %s: %w", h.program, err)
				}
				links = append(links, l)
				continue
			}
			for i, at := range k.Addresses {
				opts := &link.UprobeOptions{Address: at}
				if t.cookies {
					opts.Cookie = k.Cookies[i]
				}
				l, err := k.one(h.program, prog, opts)
				if err != nil {
					return links, fmt.Errorf("attach %s at %#x: %w", h.program, at, err)
				}
				links = append(links, l)
			}
		}
	}
	return links, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// detach takes the taps off files, and then lets who waits for it write to them.
func detach(files ...*tapped) error {
	var all []link.Link
	for _, t := range files {
		all = append(all, t.links...)
	}
	err := closeAll(all)
	for _, t := range files {
		go t.lease.Close() // the file may keep us waiting; nil has nothing to close
	}
	return err
}

// closeAll closes links side by side: the kernel waits at each, and so once.
func closeAll(links []link.Link) error {
	var closing errgroup.Group
	for _, l := range links {
		closing.Go(l.Close)
	}
	return closing.Wait()
}

// Attachment is one file that is tapped.
type Attachment struct {
	Source    flow.Source `json:"-"`
	Path      string      `json:"path"` // as the first process that mapped it sees it
	Device    uint64      `json:"device"`
	Inode     uint64      `json:"inode"`
	Functions []string    `json:"functions"`
	Since     time.Time   `json:"since"`
	Processes []uint32    `json:"processes"` // that map it, sorted, as far as they were seen
}

// Attached returns the files that are tapped, and the way to the sockets.
func (t *Taps) Attached() (all []Attachment) {
	t.finder.mu.Lock()
	defer t.finder.mu.Unlock()
	for _, f := range t.finder.files {
		a := f.Attachment
		a.Processes = slices.Sorted(maps.Keys(f.procs))
		all = append(all, a)
	}
	if t.sockets != flow.SourceNone {
		all = append(all, Attachment{Source: t.sockets, Path: "sockets"})
	}
	return all
}
