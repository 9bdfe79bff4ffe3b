package ledgercheck

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tollwire/tollwire/internal/clients"
)

// Timing is how far records are from a client's own clock.
type Timing struct {
	FirstContent Errors // time to first content
	GapMax       Errors // the longest gap between content
	GapP50       Errors // the median gap; records keep it in buckets 1/16 wide
	Duration     Errors
}

// Errors are differences between two clocks' readings of the same thing.
type Errors struct {
	abs []time.Duration
	rel []float64
}

// Add notes one difference.
func (e *Errors) Add(got, want time.Duration) {
	d := (got - want).Abs()
	e.abs = append(e.abs, d)
	e.rel = append(e.rel, float64(d)/float64(max(want, 1)))
}

// N is how many were compared.
func (e *Errors) N() int { return len(e.abs) }

// Quantile returns the q-quantile of the differences, absolute and relative to the
// client's value.
func (e *Errors) Quantile(q float64) (time.Duration, float64) {
	if len(e.abs) == 0 {
		return 0, 0
	}
	i := int(math.Ceil(q*float64(len(e.abs)))) - 1
	return slices.Sorted(slices.Values(e.abs))[max(i, 0)], slices.Sorted(slices.Values(e.rel))[max(i, 0)]
}

// Within reports whether the median is within abs or within rel.
func (e *Errors) Within(abs time.Duration, rel float64) bool {
	a, r := e.Quantile(0.5)
	return a <= abs || r <= rel
}

func (e *Errors) String() string {
	a50, r50 := e.Quantile(0.5)
	a99, r99 := e.Quantile(0.99)
	return fmt.Sprintf("median %v (%.2f %%), p99 %v (%.2f %%) of %d",
		a50.Round(time.Microsecond), 100*r50, a99.Round(time.Microsecond), 100*r99, e.N())
}

// Against compares the records of streamed calls with what a client noted. Calls
// without a record or without the client's times are left out.
func (t *Timing) Against(calls []clients.CallResult, records []*Record) {
	byID := make(map[string]*Record)
	for _, r := range records {
		if r.Role == "client" && r.ResponseID != "" {
			byID[r.ResponseID] = r
		}
	}
	for _, c := range calls {
		r := byID[c.ID]
		if r == nil || c.Begin == 0 || !c.OK {
			continue
		}
		compare := func(e *Errors, got *float64, want int64) {
			if got != nil {
				e.Add(time.Duration(*got*float64(time.Second)), time.Duration(want))
			}
		}
		compare(&t.Duration, r.Duration, c.End-c.Begin)
		if len(c.Contents) == 0 {
			continue
		}
		compare(&t.FirstContent, r.FirstContent, c.Contents[0]-c.Begin)
		gaps := make([]int64, 0, len(c.Contents))
		for i := 1; i < len(c.Contents); i++ {
			gaps = append(gaps, c.Contents[i]-c.Contents[i-1])
		}
		if len(gaps) == 0 {
			continue
		}
		slices.Sort(gaps)
		compare(&t.GapMax, r.GapMax, gaps[len(gaps)-1])
		compare(&t.GapP50, r.GapP50, gaps[len(gaps)/2])
	}
}
