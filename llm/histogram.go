package llm

import (
	"math/bits"
	"slices"
	"time"
)

// Histogram is a distribution of durations in constant memory: eight buckets an
// octave of nanoseconds, so a quantile is at most 1/16 off. The zero value is empty.
type Histogram struct {
	n     uint32
	max   time.Duration
	sum   time.Duration
	count map[uint16]uint32
}

// Add counts d; a negative one (two clocks, two readers) counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.sum += d
	h.max = max(h.max, d)
	if h.count == nil {
		h.count = make(map[uint16]uint32)
	}
	h.count[bucket(uint64(d))]++
}

// N is how many durations were counted.
func (h *Histogram) N() int { return int(h.n) }

// Max is the longest, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Sum is their sum, exactly.
func (h *Histogram) Sum() time.Duration { return h.sum }

// Quantile returns the q-quantile (0 to 1), the middle of its bucket, never more than Max.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint32(q * float64(h.n-1))
	var seen uint32
	for _, b := range h.buckets(make([]uint16, 0, 64)) {
		if seen += h.count[b]; seen > rank {
			return min(middle(b), h.max)
		}
	}
	return h.max
}

// Each calls f with each bucket's middle and count, in order.
func (h *Histogram) Each(f func(d time.Duration, n int)) {
	for _, b := range h.buckets(make([]uint16, 0, 64)) {
		f(min(middle(b), h.max), int(h.count[b]))
	}
}

// buckets appends the buckets that count anything to buf, in order.
func (h *Histogram) buckets(buf []uint16) []uint16 {
	for b := range h.count {
		buf = append(buf, b)
	}
	slices.Sort(buf)
	return buf
}

func bucket(v uint64) uint16 {
	if v < 8 {
		return uint16(v)
	}
	exp := bits.Len64(v) - 1 // at least 3
	return uint16(exp-2)*8 + uint16(v>>(exp-3)&7)
}

func middle(b uint16) time.Duration {
	if b < 8 {
		return time.Duration(b)
	}
	exp := uint(b/8) + 2
	low := uint64(8+b%8) << (exp - 3)
	return time.Duration(low + 1<<(exp-3)/2)
}
