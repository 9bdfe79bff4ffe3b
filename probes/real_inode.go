package probes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf/link"
)

// realInodes asks the kernel which inode lies behind a mapping.
type realInodes struct {
	mu   sync.Mutex // one question at a time: the question stands in a map
	objs vmaObjects
	iter *link.Iter
}

func newRealInodes() (*realInodes, error) {
	r := &realInodes{}
	if err := loadVmaObjects(&r.objs, nil); err != nil {
		return nil, fmt.Errorf("load iter/task_vma: %w", err)
	}
	var err error
	if r.iter, err = link.AttachIter(link.IterOptions{Program: r.objs.VmaInode}); err != nil {
		return nil, errors.Join(fmt.Errorf("attach iter/task_vma: %w", err), r.objs.Close())
	}
	return r, nil
}

var errNoMapping = errors.New("the mapping is gone")

// of returns the inode of the file that m maps.
func (r *realInodes) of(m mapping) (inode, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.objs.WantedVma.Put(uint32(0), &vmaWanted{Start: m.start, Tgid: m.pid}); err != nil {
		return inode{}, fmt.Errorf("ask for a mapping: %w", err)
	}
	f, err := r.iter.Open()
	if err != nil {
		return inode{}, fmt.Errorf("open iterator: %w", err)
	}
	defer f.Close()
	var b [16]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return inode{}, errNoMapping
	}
	return inode{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}, nil
}

func (r *realInodes) close() error { return errors.Join(r.iter.Close(), r.objs.Close()) }
