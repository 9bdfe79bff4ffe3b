package probes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// socketTap is one way to the bytes of plaintext sockets.
type socketTap interface {
	source() flow.Source
	// probe tries, with a program that does nothing, whether the kernel has this way.
	probe() error
	// spec is what the way loads into this kernel.
	spec() (*ebpf.CollectionSpec, error)
	// attach attaches all of the tap or nothing.
	attach(programs map[string]*ebpf.Program) ([]link.Link, error)
}

// socketTaps are the ways to the sockets, the cheapest first.
var socketTaps = []socketTap{socketFentry{}, socketKprobe{}, socketTracepoint{}}

// bestSocketTaps are the ways to the sockets, the best of this kernel first: one that
// misses calls is the worse one.
func bestSocketTaps() []socketTap {
	if running().preempts {
		return []socketTap{socketKprobe{}, socketFentry{}, socketTracepoint{}}
	}
	return socketTaps
}

// misses reports whether the kernel leaves out calls of a way to the sockets.
func misses(way flow.Source) bool {
	switch way {
	case flow.SourceSocketFentry:
		return running().preempts
	case flow.SourceSocketTracepoint:
		return running().rawPreempts && !byPerf()
	}
	return false
}

// way is a tap's value of Config.Sockets.
func way(tap socketTap) string { return strings.TrimPrefix(tap.source().String(), "socket.") }

// attachSockets takes the best way to the sockets that this kernel has, or the one
// that is asked for; nil when sockets are off. Of the ways that were not to be had,
// t.refused says why.
func (t *Taps) attachSockets() (socketTap, []link.Link, error) {
	if t.cfg.Sockets == "off" {
		return nil, nil, nil
	}
	var errs []error
	for _, tap := range bestSocketTaps() {
		if t.cfg.Sockets != "auto" && t.cfg.Sockets != way(tap) {
			continue
		}
		links, err := t.attachSocketTap(tap)
		if err == nil {
			return tap, links, nil
		}
		t.refused[tap.source()] = err
		errs = append(errs, fmt.Errorf("read sockets by %s: %w", way(tap), err))
	}
	return nil, nil, errors.Join(errs...)
}

func (t *Taps) attachSocketTap(tap socketTap) ([]link.Link, error) {
	if err := tap.probe(); err != nil {
		return nil, err
	}
	// The sockets of a node come and go by the ten thousand: were they kept beside the
	// sessions of TLS, they would push them out.
	if err := t.loadPrograms(tap.source(), tap.spec, coreMapConns); err != nil {
		return nil, err
	}
	return tap.attach(t.programs)
}

// attachAll attaches all or nothing.
func attachAll(attach ...func() (link.Link, error)) ([]link.Link, error) {
	var links []link.Link
	for _, one := range attach {
		l, err := one()
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}
