package jsonl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollwire/tollwire/account"
)

// Sync says when a file is made durable.
type Sync string

const (
	SyncNever    Sync = "never"    // when the kernel likes
	SyncInterval Sync = "interval" // every SyncEvery
	SyncAlways   Sync = "always"   // after every write; records that come at once share one
)

// Config describes the file.
type Config struct {
	Path      string        // "-" is standard output
	MaxBytes  int64         // a file is rotated before it grows past this; 0: never
	MaxAge    time.Duration // …and when it is older; 0: never
	Keep      int           // rotated files kept; 0: all
	Sync      Sync          // "" is SyncInterval
	SyncEvery time.Duration // 0 is one second
	Buffer    int           // bytes held while the disk is slow; 0 is 16 MiB. Records past it are dropped and counted.
	Stdout    io.Writer     // what "-" writes to; nil is os.Stdout
}

// Stats counts records.
type Stats struct {
	Written  uint64 // bytes
	Dropped  uint64 // records: the disk was too slow or refused them
	Failures uint64 // writes, rotations and syncs that failed
}

// File writes records behind the caller's back, so that a slow disk holds nothing up.
type File struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	buf    []byte // whole lines
	closed bool
	wake   chan struct{}
	done   chan struct{}

	// The writing goroutine's own.
	w      io.Writer
	f      *os.File // nil for standard output
	size   int64
	born   time.Time
	torn   bool // the last write ended inside a line
	dirty  bool
	synced time.Time
	warned time.Time
	err    error // of the last write and of what followed it

	written, dropped, failures atomic.Uint64
}

// Open opens or creates the file; an existing one is continued.
func Open(cfg Config, log *slog.Logger) (*File, error) {
	f := &File{cfg: cfg, log: log, now: time.Now, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if f.cfg.Sync == "" {
		f.cfg.Sync = SyncInterval
	}
	if f.cfg.SyncEvery == 0 {
		f.cfg.SyncEvery = time.Second
	}
	if f.cfg.Buffer == 0 {
		f.cfg.Buffer = 16 << 20
	}
	if !slices.Contains([]Sync{SyncNever, SyncInterval, SyncAlways}, f.cfg.Sync) {
		return nil, fmt.Errorf("sync %q: want never, interval or always", cfg.Sync)
	}
	if cfg.Path == "-" {
		if f.w = cfg.Stdout; f.w == nil {
			f.w = os.Stdout
		}
	} else if err := f.open(); err != nil {
		return nil, err
	}
	go f.run()
	return f, nil
}

// Export queues r. It never blocks.
func (f *File) Export(r *account.Record) {
	f.mu.Lock()
	if f.closed || len(f.buf) >= f.cfg.Buffer {
		f.mu.Unlock()
		f.dropped.Add(1)
		return
	}
	f.buf = Append(f.buf, r)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Close writes what is queued, syncs and closes, or gives up when ctx ends. It fails
// where the last of these did; what failed before and went well later is in Stats.
func (f *File) Close(ctx context.Context) error {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if !closed {
		close(f.wake)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return fmt.Errorf("close %s: %w", f.cfg.Path, ctx.Err())
	}
	if f.err != nil {
		return fmt.Errorf("write records: %w", f.err)
	}
	return nil
}

// Stats returns the counters.
func (f *File) Stats() Stats {
	return Stats{Written: f.written.Load(), Dropped: f.dropped.Load(), Failures: f.failures.Load()}
}

func (f *File) run() {
	defer close(f.done)
	tick := time.NewTicker(f.cfg.SyncEvery)
	defer tick.Stop()
	var spare []byte
	for open := true; open; {
		select {
		case _, open = <-f.wake:
		case <-tick.C:
		}
		f.mu.Lock()
		full := f.buf
		f.buf = spare[:0]
		f.mu.Unlock()
		if len(full) > 0 {
			f.write(full)
		}
		if spare = full; cap(spare) > 1<<20 {
			spare = nil // a burst's buffer is not kept
		}
		f.sync(!open)
		f.rotateByAge()
	}
	if f.f != nil {
		f.closing("close", f.f.Close())
	}
}

// closing checks what makes written lines durable.
func (f *File) closing(what string, err error) {
	f.check(what, err)
	f.err = errors.Join(f.err, err)
}

// write writes whole lines, and rotates between them.
func (f *File) write(b []byte) {
	for len(b) > 0 {
		n := len(b)
		if room := f.cfg.MaxBytes - f.size; f.f != nil && f.cfg.MaxBytes > 0 && int64(n) > room {
			n = bytes.LastIndexByte(b[:max(room, 0)], '\n') + 1
			if n == 0 {
				if f.size > 0 && f.rotate() {
					continue
				}
				n = bytes.IndexByte(b, '\n') + 1 // a line longer than any file may be
			}
		}
		if f.torn {
			if _, ok := f.put([]byte{'\n'}); !ok {
				f.drop(b)
				return
			}
			f.torn = false
		}
		n, ok := f.put(b[:n])
		if b = b[n:]; !ok {
			f.drop(b)
			return
		}
	}
}

// drop counts the records whose ends are in b.
func (f *File) drop(b []byte) { f.dropped.Add(uint64(bytes.Count(b, []byte{'\n'}))) }

// put returns how much of b was written, and whether that was all.
func (f *File) put(b []byte) (int, bool) {
	n, err := f.w.Write(b)
	f.size += int64(n)
	f.written.Add(uint64(n))
	f.dirty = true
	f.torn = n > 0 && b[n-1] != '\n' || n == 0 && f.torn
	f.err = err
	return n, f.check("write", err)
}

func (f *File) sync(last bool) {
	due := f.cfg.Sync == SyncAlways || f.cfg.Sync == SyncInterval && (last || f.now().Sub(f.synced) >= f.cfg.SyncEvery)
	if f.f != nil && f.dirty && due {
		f.closing("sync", f.f.Sync())
		f.dirty, f.synced = false, f.now()
	}
}

func (f *File) rotateByAge() {
	if f.f != nil && f.cfg.MaxAge > 0 && f.size > 0 && f.now().Sub(f.born) >= f.cfg.MaxAge {
		f.rotate()
	}
}

// rotate moves the file aside, opens a new one and removes the oldest. On an error
// the file in use stays in use.
func (f *File) rotate() bool {
	if f.cfg.Sync != SyncNever {
		f.check("sync", f.f.Sync())
	}
	old := f.f
	aside := f.cfg.Path + "." + f.now().UTC().Format("20060102T150405.000000000Z")
	if !f.check("rotate", os.Rename(f.cfg.Path, aside)) {
		return false
	}
	if !f.check("rotate", f.open()) {
		f.check("rotate", os.Rename(aside, f.cfg.Path))
		return false
	}
	f.check("close", old.Close())
	f.torn = false
	if rotated, err := rotatedFiles(f.cfg.Path); f.check("rotate", err) && f.cfg.Keep > 0 {
		for len(rotated) > f.cfg.Keep {
			f.check("remove", os.Remove(rotated[0]))
			rotated = rotated[1:]
		}
	}
	return true
}

// open opens the file for appending. Records name processes and tenants: it is the
// owner's alone.
func (f *File) open() error {
	o, err := os.OpenFile(f.cfg.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open records: %w", err)
	}
	info, err := o.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open records: %w", err), o.Close())
	}
	f.f, f.w, f.size, f.born = o, o, info.Size(), f.now()
	if f.size > 0 {
		f.born = begun(o, info)
		var last [1]byte
		_, err := o.ReadAt(last[:], f.size-1)
		f.torn = err == nil && last[0] != '\n'
	}
	return nil
}

// begun is when the file's first record was made, or the file written last.
func begun(f *os.File, info os.FileInfo) time.Time {
	first, err := bufio.NewReader(io.NewSectionReader(f, 0, maxLine)).ReadBytes('\n')
	if err == nil {
		if l, err := Parse(first); err == nil && !l.Time.IsZero() {
			return l.Time
		}
	}
	return info.ModTime()
}

// check counts a failure and says so, at most once a minute.
func (f *File) check(what string, err error) bool {
	if err == nil {
		return true
	}
	f.failures.Add(1)
	if now := f.now(); now.Sub(f.warned) > time.Minute {
		f.warned = now
		f.log.Error(what+" records", "path", f.cfg.Path, "err", err, "dropped", f.dropped.Load())
	}
	return false
}

// rotatedFiles returns the rotated files of path, the oldest first.
func rotatedFiles(path string) ([]string, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if dir == "" {
		entries, err = os.ReadDir(".")
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		stamp, ok := bytes.CutPrefix([]byte(e.Name()), []byte(base+"."))
		if _, err := time.Parse("20060102T150405.000000000Z", string(stamp)); ok && err == nil {
			files = append(files, dir+e.Name())
		}
	}
	slices.Sort(files)
	return files, nil
}
