package probes

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// socketTap is one way to the bytes of plaintext sockets.
type socketTap interface {
	name() string
	// attach attaches all of the tap or nothing.
	attach() ([]link.Link, error)
}

func attachSockets(tap socketTap) ([]link.Link, error) { return tap.attach() }

// socketTracepoint sees system calls by raw tracepoints, which need no tracefs.
type socketTracepoint struct {
	enter, exit *ebpf.Program
}

func (*socketTracepoint) name() string { return "tracepoint" }

func (s *socketTracepoint) attach() ([]link.Link, error) {
	if s.enter == nil || s.exit == nil {
		return nil, errors.New("its programs did not load")
	}
	// The entry first: an exit without its entry takes the exit's time.
	enter, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: s.enter})
	if err != nil {
		return nil, fmt.Errorf("attach to sys_enter: %w", err)
	}
	exit, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: s.exit})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to sys_exit: %w", err), enter.Close())
	}
	return []link.Link{enter, exit}, nil
}
