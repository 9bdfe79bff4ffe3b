package probes

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// socketTracepoint sees system calls by raw tracepoints, which need no tracefs.
type socketTracepoint struct{}

func (socketTracepoint) source() flow.Source { return flow.SourceSocketTracepoint }

func (socketTracepoint) probe() error { return tryRawTracepoint() }

func (socketTracepoint) spec() (*ebpf.CollectionSpec, error) { return loadSocketTracepoint() }

func (socketTracepoint) attach(programs map[string]*ebpf.Program) ([]link.Link, error) {
	at := func(name, program string) func() (link.Link, error) {
		return func() (link.Link, error) {
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: programs[program]})
			if err != nil {
				return nil, fmt.Errorf("attach to %s: %w", name, err)
			}
			return l, nil
		}
	}
	// The entry first: an exit without its entry takes the exit's time.
	return attachAll(at("sys_enter", "socket_enter"), at("sys_exit", "socket_exit"))
}
