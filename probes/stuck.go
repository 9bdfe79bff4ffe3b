package probes

import (
	"errors"
	"time"
)

// A file may lie on a server that does not answer, and who asks for it waits for as long.
// Whoever looks at one file after the other is then relieved by another that goes on. A
// file that somebody waits for is left alone by others, and so is a file system that has
// several waiting.

const (
	patience        = 20 * time.Millisecond  // that a file has before other programs that start are looked at
	scanPatience    = 500 * time.Millisecond // before other programs that run are
	examinePatience = 30 * time.Second       // before others are looked through at scanRate
	silence         = 5 * time.Second        // after which its processes are named
	farewell        = time.Second            // that all who look at files have to end

	maxWaitingOn = 4  // who may wait for one file system
	maxWaiting   = 64 // and for all
)

var errSilent = errors.New("its file system does not answer")

// waiter is somebody who works on a file, and may have been relieved.
type waiter struct {
	mapping
	since time.Time // that it was relieved
	over  bool
}

// turn runs work on the file behind a mapping, and reports whether its caller is to go on:
// it is not where another goes on already.
type turn func(m mapping, work func()) bool

// inTurns runs loop beside its caller, and once more whenever a file keeps it waiting
// beyond patience; loop ends when that says so.
func (f *finder) inTurns(patience time.Duration, loop func(turn)) {
	next := func() { f.inTurns(patience, loop) }
	f.wg.Go(func() {
		loop(func(m mapping, work func()) bool {
			h := &waiter{mapping: m}
			timer := time.AfterFunc(patience, func() { f.relieve(h, next) })
			work()
			timer.Stop()
			f.mu.Lock()
			defer f.mu.Unlock()
			h.over = true
			if _, relieved := f.waiting[h]; !relieved {
				return true
			}
			delete(f.waiting, h)
			if f.left {
				f.left = false
				f.scanSoon()
			}
			return false
		})
	})
}

// relieve begins next in the place of h, when there is room.
func (f *finder) relieve(h *waiter, next func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.over {
		return
	}
	if len(f.waiting) >= maxWaiting {
		time.AfterFunc(patience, func() { f.relieve(h, next) })
		return
	}
	h.since = time.Now()
	f.waiting[h] = struct{}{}
	time.AfterFunc(silence, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !h.over {
			f.scanSoon() // to name who maps it
		}
	})
	next()
}

// leaveAlone reports whether to leave the file behind a mapping alone for now, and names the
// process when that has lasted. The caller holds the lock.
func (f *finder) leaveAlone(m mapping) bool {
	same, on, silent := false, 0, false
	for h := range f.waiting {
		if h.seen.dev == m.seen.dev {
			same = same || h.seen == m.seen
			on++
			silent = silent || time.Since(h.since) >= silence
		}
	}
	if !same && on < maxWaitingOn {
		return false
	}
	f.left = true
	if k, known := f.known[m.seen]; known {
		f.tell(m, k)
	} else if silent {
		f.warn(m, errSilent)
		f.notSeen(m, attachFailed(errSilent))
	}
	return true
}
