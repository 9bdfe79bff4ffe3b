package probes

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// socketTracepoint sees system calls by their tracepoints: raw ones, which need no
// tracefs, or perf's.
type socketTracepoint struct{}

func (socketTracepoint) source() flow.Source { return flow.SourceSocketTracepoint }

func (socketTracepoint) probe() error { return tryRawTracepoint() }

func (socketTracepoint) spec() (*ebpf.CollectionSpec, error) {
	return onTracepoints(loadSocketTracepoint)
}

func (socketTracepoint) attach(programs map[string]*ebpf.Program) ([]link.Link, error) {
	at := func(name, raw, whole string) func() (link.Link, error) {
		return func() (link.Link, error) {
			return attachTracepoint("raw_syscalls", name, programs[raw], programs[whole])
		}
	}
	// The entry first: an exit without its entry takes the exit's time.
	return attachAll(at("sys_enter", "socket_enter", "socket_enter_whole"), at("sys_exit", "socket_exit", "socket_exit_whole"))
}
