package probes

import (
	"errors"
	"log/slog"
	"testing"
)

// TestUnobservable: a process is named while a file of its is not tapped, and no longer.
func TestUnobservable(t *testing.T) {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()}))
	lib, other := inode{1, 2}, inode{1, 3}
	first, second := mapping{pid: 42, seen: lib, path: "/lib"}, mapping{pid: 43, seen: lib, path: "/lib"}
	want := func(what string, pids ...uint32) {
		t.Helper()
		named := f.unseen
		if len(named) != len(pids) {
			t.Errorf("%s: %v, want %v", what, named, pids)
		}
		for _, pid := range pids {
			if u := named[pid]; u.PID != pid || u.Reason != "attach_failed" || u.Executable != "/lib" || u.Detail != "no" {
				t.Errorf("%s: %+v", what, u)
			}
		}
	}
	by := func(of inode, pids ...uint32) users {
		all := users{of: {}}
		for _, pid := range pids {
			all[of][pid] = struct{}{}
		}
		return all
	}
	f.unread(first, errors.New("no"))
	f.unread(second, errors.New("no"))
	want("both fail", 42, 43)
	f.swept(by(lib, 42, 43))
	want("both go on", 42, 43)

	tap := &tapped{procs: make(map[uint32]struct{})}
	f.learn(first, found{tap: tap})
	want("the first is tapped", 43)
	f.mapped(second, false)
	want("and so is the second")

	f.unread(first, errors.New("no"))
	f.learn(mapping{pid: 42, seen: other, path: "/other"}, found{tap: tap})
	want("another file of its is tapped", 42)
	f.swept(by(other, 42))
	want("the number is another process's")
}

// TestUnreadable: of a file that cannot be tapped every process is named that maps it.
func TestUnreadable(t *testing.T) {
	f := newFinder(newTaps(Config{Logger: slog.New(slog.DiscardHandler), Proc: t.TempDir()}))
	m := mapping{pid: 42, seen: inode{1, 2}, path: "/program"}
	f.failed(m, errors.New("no"), found{})
	m.pid = 43
	f.mapped(m, false)
	if len(f.unseen) != 2 || f.unseen[43].Detail != "no" || f.unseen[43].Reason != "attach_failed" {
		t.Errorf("%+v", f.unseen)
	}
}
