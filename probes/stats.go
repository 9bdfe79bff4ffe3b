package probes

import "github.com/tollwire/tollwire/flow"

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
	return s
}
