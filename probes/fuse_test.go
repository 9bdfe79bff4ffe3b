package probes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fuse is a file system of one program under several names, whose server can keep this
// process waiting: the kernel's FUSE protocol, version 7.31 (linux/fuse.h).
type fuse struct {
	dir     string
	dev     int
	program []byte
	names   []string

	mu      sync.Mutex
	silent  bool
	waiting []func() // answers that are held back
}

// fuseProgram mounts a program under these names. Others than this process are answered
// always; how the file is opened is kept back from this one until answer.
func fuseProgram(t *testing.T, program string, names ...string) *fuse {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	s := &fuse{dir: t.TempDir(), program: b, names: names, silent: true}
	if s.dev, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", s.dev)
	if err := unix.Mount("tollwire-test", s.dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve()
	}()
	t.Cleanup(func() { // whoever waits has an error
		if err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		<-served
		unix.Close(s.dev)
	})
	return s
}

func (s *fuse) path(name string) string { return filepath.Join(s.dir, name) }

// kept returns how many requests wait for their answers.
func (s *fuse) kept() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// answer gives the answers that were kept back, and from here on at once.
func (s *fuse) answer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = false
	for _, w := range s.waiting {
		w()
	}
	s.waiting = nil
}

func (s *fuse) serve() {
	const (
		lookup, forget, getattr, open, read, release, flush, init, interrupt, forgets = 1, 2, 3, 14, 15, 18, 25, 26, 36, 42
		header                                                                        = 40
	)
	le := binary.LittleEndian
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(s.dev, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil { // unmounted
			return
		}
		in := buf[:n]
		op, id, node, tid := le.Uint32(in[4:]), le.Uint64(in[8:]), le.Uint64(in[16:]), le.Uint32(in[32:])
		reply := func(errno unix.Errno, out []byte) {
			h := le.AppendUint32(nil, uint32(16+len(out)))
			h = le.AppendUint32(h, uint32(-int32(errno)))
			unix.Write(s.dev, append(le.AppendUint64(h, id), out...))
		}
		switch op {
		case init:
			out := make([]byte, 64)
			le.PutUint32(out, 7)
			le.PutUint32(out[4:], 31)
			le.PutUint32(out[20:], 1<<16) // max_write
			reply(0, out)
		case lookup:
			i := slices.Index(s.names, string(in[header:n-1]))
			if i < 0 {
				reply(unix.ENOENT, nil)
				continue
			}
			out := le.AppendUint64(nil, uint64(i+2))
			out = append(out, make([]byte, 32)...)
			le.PutUint64(out[16:], 3600) // the name and what it stands for hold, in seconds
			le.PutUint64(out[24:], 3600)
			reply(0, append(out, s.attributes(uint64(i+2))...))
		case getattr:
			out := append(le.AppendUint64(nil, 3600), make([]byte, 8)...)
			reply(0, append(out, s.attributes(node)...))
		case open:
			answer := func() { reply(0, make([]byte, 16)) }
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			s.mu.Lock()
			if s.silent && err == nil {
				s.waiting = append(s.waiting, answer)
			} else {
				answer()
			}
			s.mu.Unlock()
		case read:
			from := min(le.Uint64(in[header+8:]), uint64(len(s.program)))
			to := min(from+uint64(le.Uint32(in[header+16:])), uint64(len(s.program)))
			reply(0, s.program[from:to])
		case release, flush:
			reply(0, nil)
		case forget, forgets, interrupt: // have no answer
		default:
			reply(unix.ENOSYS, nil)
		}
	}
}

// attributes is a struct fuse_attr.
func (s *fuse) attributes(node uint64) []byte {
	le := binary.LittleEndian
	out := make([]byte, 88)
	le.PutUint64(out, node)
	mode := uint32(unix.S_IFDIR | 0o755)
	if node > 1 {
		mode = unix.S_IFREG | 0o755
		le.PutUint64(out[8:], uint64(len(s.program)))
	}
	le.PutUint32(out[60:], mode)
	le.PutUint32(out[64:], 1) // links
	le.PutUint32(out[80:], 4096)
	return out
}
