package probes

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// inode names a file on this machine whatever mount it is seen through.
type inode struct{ dev, ino uint64 }

// mapping is a file mapped for execution by a process. dev and ino are as the
// mount shows them, which on overlayfs are not those of the real file.
type mapping struct {
	pid        uint32
	start, end uint64
	seen       inode
	path       string
	deleted    bool // at the path is nothing any more, or another file
}

// found is what was found in a file when it was as it was.
type found struct {
	as    fileState
	tap   *tapped   // nil: none
	blind stack     // the TLS that it holds and no tap reads; zero: none
	again bool      // after the next sweep it is to be tried again
	noted time.Time // that somebody maps it, last
}

// finder attaches the taps to every file that is mapped and has something to tap:
// once a real inode, however many mounts and processes there are.
type finder struct {
	taps  *Taps
	log   *slog.Logger
	real  *realInodes
	watch *mmapWatch
	// written is nil where the kernel gives none.
	written *writeWatch
	primer  *primer // nil: files are tapped some milliseconds later

	mu      sync.Mutex
	freed   *sync.Cond         // one of busy is not any more
	busy    map[inode]struct{} // that probes are put on or taken off, by real inode
	waiting map[*waiter]struct{}
	left    bool              // files were left alone because of those
	known   map[inode]*found  // as mounts show it
	files   map[inode]*tapped // by real inode
	warned  map[inode]bool    // files that could not be tapped, told once
	unseen  map[uint32]unseen

	again                   chan struct{} // asks for a scan
	suspect, suspectLibrary chan suspect

	examined *examined
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// maxKnown bounds the files whose contents are remembered: what is forgotten is looked into
// anew, and a tap that stands on it found again by the real inode.
const maxKnown = 1 << 16

// sweepEvery is how often files that nobody maps any more are let go.
const sweepEvery = 30 * time.Second

func newFinder(t *Taps) *finder {
	f := &finder{
		taps: t, log: t.log, known: make(map[inode]*found), files: make(map[inode]*tapped),
		warned: make(map[inode]bool), unseen: make(map[uint32]unseen), busy: make(map[inode]struct{}), waiting: make(map[*waiter]struct{}),
		again: make(chan struct{}, 1), suspect: make(chan suspect, 64), suspectLibrary: make(chan suspect, 64), examined: newExamined(),
	}
	f.freed = sync.NewCond(&f.mu)
	return f
}

// start listens for new mappings, scans those that are there, and goes on.
func (f *finder) start(ctx context.Context) error {
	f.ctx, f.cancel = context.WithCancel(ctx)
	var err error
	if f.real, err = newRealInodes(); err != nil { // before Linux 5.12
		f.log.Warn("files behind overlay mounts are told apart by mount", "err", err)
	}
	if f.written, err = watchWrites(); err != nil {
		f.log.Warn("files that are written to in place are told when they are mapped again", "err", err)
	}
	// Before the scan, so that nothing falls between.
	if f.watch, err = watchMappings(); err != nil {
		f.log.Warn("programs that start are found by scanning only", "err", err)
	}
	if f.written != nil {
		written := func(t *tapped) { f.wg.Go(func() { f.rewritten(t) }) }
		f.wg.Go(func() { f.written.give(written) })
		f.wg.Go(func() {
			if err := f.written.run(written); err != nil {
				f.log.Warn("files that are written to in place are told when they are mapped again", "err", err)
			}
		})
	}
	if f.taps.multi {
		if f.primer, err = newPrimer(); err != nil {
			f.log.Debug("new files are tapped some milliseconds later", "err", err)
		} else {
			f.wg.Go(func() {
				if err := f.primer.run(f.ctx); err != nil {
					f.log.Debug("new files are tapped some milliseconds later", "err", err)
				}
			})
		}
	}
	f.scan()
	if f.watch != nil {
		f.inTurns(patience, func(do turn) {
			mapped := func(m mapping) bool { return do(m, func() { f.mapped(m, false) }) }
			if err := f.watch.run(mapped, f.scanSoon); err != nil {
				f.log.Error("programs that start are found by scanning only", "err", err)
			}
		})
	}
	f.wg.Go(f.sweep)
	f.inTurns(examinePatience, f.suspects)
	return nil
}

func (f *finder) stop() error {
	f.cancel()
	var errs []error
	if f.watch != nil {
		errs = append(errs, f.watch.close())
	}
	if f.written != nil {
		errs = append(errs, f.written.close())
	}
	ended := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(farewell): // who waits for a file attaches nothing any more
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	errs = append(errs, detach(slices.Collect(maps.Values(f.files))...))
	clear(f.files)
	clear(f.known)
	if f.real != nil {
		errs = append(errs, f.real.close())
	}
	return errors.Join(errs...)
}

// mapped looks at one mapping, and into its file unless that is known. A file that is
// mapped stays the one it is, so that of many mappings at once only the first need be held
// against what is known; checked says that it was.
func (f *finder) mapped(m mapping, checked bool) {
	if int(m.pid) == os.Getpid() || m.seen.ino == 0 {
		return
	}
	f.mu.Lock()
	k, known := f.known[m.seen]
	old := false // the process
	if known && k.tap != nil {
		_, old = k.tap.procs[m.pid]
	}
	left := f.leaveAlone(m)
	f.mu.Unlock()
	switch {
	case left:
	case !known:
		if f.primer != nil {
			f.primer.prime()
		}
		f.look(m)
	case (old || checked || still(f.taps.cfg.Proc, m, k.as)) && f.told(m, k):
	default:
		if k.tap != nil {
			f.rewritten(k.tap)
		}
		f.look(m)
	}
}

// rewritten takes the taps off a file that is not what it was. Whoever maps it next has it
// tapped anew.
func (f *finder) rewritten(t *tapped) {
	defer f.alone(t.real)()
	f.mu.Lock()
	mine := f.release(t)
	f.mu.Unlock()
	if !mine {
		return
	}
	f.log.Debug("written to", "path", t.Path, "inode", t.Inode)
	if err := detach(t); err != nil {
		f.log.Warn("detach from a file that was written to", "path", t.Path, "err", err)
	}
}

// alone waits until nobody else puts probes on a file or takes them off, and returns what
// lets the next one.
func (f *finder) alone(real inode) (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if _, taken := f.busy[real]; !taken {
			break
		}
		f.freed.Wait()
	}
	f.busy[real] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.busy, real)
		f.freed.Broadcast()
	}
}

// release forgets a file, and reports whether it is the caller's to detach, without the lock.
func (f *finder) release(t *tapped) bool {
	if t.released {
		return false
	}
	t.released = true
	if f.files[t.real] == t {
		delete(f.files, t.real)
	}
	maps.DeleteFunc(f.known, func(_ inode, k *found) bool { return k.tap == t })
	f.unwatch(t)
	return true
}

func (f *finder) unwatch(t *tapped) {
	if f.written != nil {
		f.written.remove(t)
	}
}

// errWritten says that a file was written to while it was looked into.
var errWritten = errors.New("written to meanwhile")

// look opens the file behind a mapping and taps it when there is something to tap.
func (f *finder) look(m mapping) {
	began := time.Now()
	file, err := openMapped(f.taps.cfg.Proc, m)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.unread(m, err)
		}
		return
	}
	as, err := stateOf(file, m.seen)
	if err != nil {
		file.Close()
		f.unread(m, err)
		return
	}
	target, err := findTarget(file)
	if err != nil {
		if errors.Is(err, errNoTarget) {
			f.suspectLater(m, file, as)
			return
		}
		file.Close()
		f.failed(m, err, found{as: as, again: errors.Is(err, errUnread)})
		return
	}
	defer file.Close()
	looked := time.Now()
	t, err := f.attach(m, file, target, as)
	if errors.Is(err, errNoMapping) { // the process has ended: the next one's will do
		return
	}
	if err != nil {
		f.failed(m, err, found{as: as, again: true})
		return
	}
	f.log.Debug("tapped", "path", m.path, "source", target.source, "pid", m.pid, "inode", t.Inode,
		"find", looked.Sub(began), "attach", time.Since(looked))
	f.learn(m, found{as: as, tap: t})
}

// learn remembers what was found in the file behind a mapping.
func (f *finder) learn(m mapping, k found) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.tap != nil && k.tap.released { // meanwhile
		return
	}
	if len(f.known) >= maxKnown {
		clear(f.known)
	}
	f.known[m.seen] = &k
	f.tell(m, &k)
}

// told is tell, unless the tap has been let go of meanwhile.
func (f *finder) told(m mapping, k *found) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.tap != nil && k.tap.released {
		return false
	}
	f.tell(m, k)
	return true
}

// tell notes of a process whether what it maps is seen.
func (f *finder) tell(m mapping, k *found) {
	now := time.Now()
	k.noted = now
	switch {
	case k.tap != nil:
		if _, old := k.tap.procs[m.pid]; !old {
			k.tap.spaces[f.mountSpace(m.pid)] = now
		}
		k.tap.procs[m.pid] = now
		f.observed(m)
	case k.blind != stack{}:
		f.notSeen(m, k.blind)
	default:
		f.observed(m) // there is nothing to see
	}
}

// identify returns the real inode behind a mapping, or errNoMapping; without the kernel's
// iterator the one that its mount shows.
func (f *finder) identify(m mapping, file *os.File) (inode, error) {
	if f.real != nil {
		return f.real.of(m)
	}
	return statInode(file)
}
