package probes

import (
	"maps"
	"time"
)

// users are the processes that map files, as mounts show them.
type users map[inode]map[uint32]struct{}

// scan looks at every mapping of every process; nil when the finder is stopped.
func (f *finder) scan() users {
	done := make(chan users, 1)
	f.inTurns(scanPatience, func(do turn) {
		all := make(users)
		whole := eachMapping(f.taps.cfg.Proc, func(m mapping) bool {
			pids := all[m.seen]
			if pids == nil {
				pids = make(map[uint32]struct{})
				all[m.seen] = pids
			}
			checked := len(pids) > 0
			pids[m.pid] = struct{}{}
			return do(m, func() { f.mapped(m, checked) }) && f.ctx.Err() == nil
		})
		if whole {
			done <- all
		}
	})
	select {
	case all := <-done:
		return all
	case <-f.ctx.Done():
		return nil
	}
}

// scanSoon asks for a scan.
func (f *finder) scanSoon() {
	select {
	case f.again <- struct{}{}:
	default: // is asked for
	}
}

// sweep lets go of files that nobody maps any more, and forgets processes that ended. It
// scans meanwhile when it is asked to.
func (f *finder) sweep() {
	tick, often := time.NewTicker(sweepEvery), time.NewTicker(orphansEvery)
	defer tick.Stop()
	defer often.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.again:
			f.scan()
			continue
		case <-often.C:
			if err := detach(f.orphans()...); err != nil {
				f.log.Warn("detach from files of containers that are gone", "err", err)
			}
			continue
		case <-tick.C:
		}
		began := time.Now()
		by := f.scan()
		if by == nil {
			return
		}
		if err := detach(f.swept(by, began)...); err != nil {
			f.log.Warn("detach from files that nobody maps any more", "err", err)
		}
	}
}

// swept forgets what is over now that these map the files, by a scan that began then, and
// returns those to be detached from. What was noted since then, the scan may have passed by.
func (f *finder) swept(by users, began time.Time) (unused []*tapped) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for seen, k := range f.known {
		if k.tap != nil {
			for pid := range by[seen] {
				k.tap.procs[pid] = began
			}
		}
	}
	for _, t := range f.files {
		maps.DeleteFunc(t.procs, func(_ uint32, noted time.Time) bool { return noted.Before(began) })
		if t.unused++; len(t.procs) > 0 {
			t.unused = 0
			f.respace(t, began)
		}
		if t.unused >= 2 && f.release(t) {
			unused = append(unused, t)
		}
	}
	// A tapped file that nobody maps at all goes with the next sweep. Until then it is held
	// against what it was when it is mapped again.
	maps.DeleteFunc(f.known, func(seen inode, k *found) bool {
		unused := by[seen] == nil && k.noted.Before(began)
		return k.again || unused && (k.tap == nil || len(k.tap.procs) > 0)
	})
	for pid, u := range f.unseen { // a process of that number that maps other files is another one
		if _, ok := by[u.file][pid]; !ok && u.noted.Before(began) {
			delete(f.unseen, pid)
		}
	}
	return unused
}
