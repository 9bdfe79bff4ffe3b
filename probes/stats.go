package probes

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tollwire/tollwire/flow"
)

// SourceStats counts the bytes of one tap. Seen is counted from the return values
// of calls and apart from the rest, so that Seen = Submitted + Ignored + the sum of
// Dropped, but for up to seven bytes a connection that may become a head.
type SourceStats struct {
	Calls     uint64 // calls that moved bytes
	Seen      uint64 // bytes
	Submitted uint64 // bytes that went into a ring
	Records   uint64 // records that went into a ring with them
	Ignored   uint64 // bytes that nobody needs
	Dropped   [flow.NumGapReasons]uint64
	LostEnds  uint64 // ends of directions, connections and (SourceNone) processes that no ring had room for
	// Missed is how often the kernel passed a place without running the tap's program
	// there: another task was preempted inside of it on the same CPU (fentry on
	// preemptible kernels, raw tracepoints since Linux 7.0) or inside of bpf(2) with a map
	// (kprobes, perf's tracepoints), or more calls slept than a kretprobe has room for.
	// What these calls moved is found by the socket's next call and counted as seen and
	// dropped, GapMissed. Zero where the kernel does not count it: before Linux 5.12, of
	// kretprobes before 6.7.
	Missed uint64
}

// Stats is what the kernel side has counted since Start.
type Stats struct {
	Sources [flow.NumSources]SourceStats
}

// Stats adds up the counters of all CPUs; after Close they are what they were at
// the end. What cannot be read is zero.
func (t *Taps) Stats() Stats {
	t.freeing.RLock()
	defer t.freeing.RUnlock()
	if t.final != nil {
		return *t.final
	}
	return t.readStats()
}

func (t *Taps) readStats() (s Stats) {
	for src := range s.Sources {
		var perCPU []coreCounters
		if t.core.Stats == nil || t.core.Stats.Lookup(uint32(src), &perCPU) != nil {
			continue
		}
		sum := &s.Sources[src]
		for _, c := range perCPU {
			sum.Calls += c.Calls
			sum.Seen += c.Seen
			sum.Submitted += c.Submitted
			sum.Records += c.Records
			sum.Ignored += c.Ignored
			sum.LostEnds += c.LostEnds
			for i, n := range c.Dropped {
				sum.Dropped[i] += n
			}
		}
	}
	t.countMissed(&s)
	return s
}

func (t *Taps) countMissed(s *Stats) {
	count := func(source flow.Source, p *ebpf.Program) {
		if n, err := p.Stats(); err == nil {
			s.Sources[source].Missed += n.RecursionMisses
		}
	}
	for _, p := range []*ebpf.Program{t.core.ProcessExit, t.core.ProcessExitWhole} { // one of them is attached
		if p != nil {
			count(flow.SourceNone, p)
		}
	}
	for _, l := range t.loaded {
		for _, p := range l.Programs {
			count(l.source, p)
		}
	}
	t.following.Lock()
	defer t.following.Unlock()
	for source, n := range t.missed {
		s.Sources[source].Missed += n
	}
	s.Sources[t.sockets].Missed += missedBy(t.socketLinks)
}

// missedBy is how often the kernel had no room for kprobes' calls.
func missedBy(links []link.Link) (n uint64) {
	for _, l := range links {
		info, err := l.Info()
		if err != nil || info.PerfEvent() == nil {
			continue
		}
		if k := info.PerfEvent().Kprobe(); k != nil {
			n += k.Missed
		}
	}
	return n
}
