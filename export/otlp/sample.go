package otlp

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"time"

	"github.com/tollwire/tollwire/account"
)

// Sampling says which calls become spans. It decides by trace, so that a trace is
// kept whole as far as its calls are alike; metrics are never sampled.
type Sampling struct {
	// Ratio of the traces that is kept, 0 to 1. Calls below are kept whatever it is.
	Ratio float64
	Slow  time.Duration // calls that took this long or longer; 0: no such rule
	Cost  float64       // calls that cost this many USD or more; 0: no such rule
	// Keep are attributes of spans whose listed values are kept: tollwire.tenant: [acme].
	// An empty list keeps every call that has the attribute.
	Keep map[string][]string
}

// kept reports whether r becomes a span. Errors always do.
func (s *Sampling) kept(r *account.Record, attrs []attribute) bool {
	if s.Ratio >= 1 || r.Outcome() != account.OutcomeOK {
		return true
	}
	if d, ok := account.Known(r.Call.Times.Start, r.Call.Times.End); ok && s.Slow > 0 && d >= s.Slow {
		return true
	}
	if r.Price.Unpriced == "" && s.Cost > 0 && r.Price.USD.Float64() >= s.Cost {
		return true
	}
	for _, a := range attrs {
		if values, ok := s.Keep[a.key]; ok && (len(values) == 0 || slices.Contains(values, a.text())) {
			return true
		}
	}
	return inRatio(r.Trace.TraceID, s.Ratio)
}

// inRatio decides by the trace id's last 56 bits, as OpenTelemetry's consistent
// probability sampling does, so that every agent and collector keeps the same traces.
func inRatio(traceID string, ratio float64) bool {
	b, err := hex.DecodeString(traceID)
	if err != nil || len(b) != 16 {
		return false
	}
	const span = 1 << 56
	random := binary.BigEndian.Uint64(b[8:]) & (span - 1)
	return random >= uint64(math.Round((1-ratio)*span))
}
