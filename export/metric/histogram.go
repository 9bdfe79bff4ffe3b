package metric

import (
	"math"
	"slices"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Histogram is a distribution in buckets, classic and, when asked for, native.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets []uint64 // one more than the bounds: the last has none
	// Native is nil when native buckets were not asked for.
	Native *Native
	// Exemplars has the last call of each bucket; zero where there was none.
	Exemplars []Exemplar
}

// Native holds the buckets of Prometheus' native histograms: bucket i counts values
// over base^(i-1) up to base^i, where base is 2^(2^-Schema).
type Native struct {
	Schema int32
	Zero   uint64 // values up to NativeZero
	Counts map[int32]uint64
}

const (
	// NativeZero is the width of a native histogram's zero bucket.
	NativeZero = 1e-9
	// nativeSchema gives buckets 9 % wide.
	nativeSchema = 3
	// nativeBuckets bounds the buckets of a histogram; past it they are made wider.
	nativeBuckets = 160
)

// Exemplar is a call that stands for a bucket.
type Exemplar struct {
	TraceID, SpanID string
	Value           float64
	Time            time.Time
}

// add counts v n times.
func (h *Histogram) add(bounds []float64, v float64, n uint64) {
	i, _ := slices.BinarySearch(bounds, v)
	h.Buckets[i] += n
	h.Count += n
	h.Sum += v * float64(n)
	if h.Native != nil {
		h.Native.add(v, n)
	}
}

// mark makes e stand for the bucket of v.
func (h *Histogram) mark(bounds []float64, v float64, e Exemplar) {
	if e.TraceID == "" {
		return
	}
	if h.Exemplars == nil {
		h.Exemplars = make([]Exemplar, len(h.Buckets))
	}
	i, _ := slices.BinarySearch(bounds, v)
	e.Value = v
	h.Exemplars[i] = e
}

// merge counts every duration of g: bucket by bucket, so the cost does not depend on
// how many there are. The sum stays exact; a value may sit 1/16 beside itself.
func (h *Histogram) merge(bounds []float64, g *llm.Histogram) {
	sum := h.Sum + g.Sum().Seconds()
	g.Each(func(d time.Duration, n int) { h.add(bounds, d.Seconds(), uint64(n)) })
	h.Sum = sum
}

func (n *Native) add(v float64, count uint64) {
	if !(v > NativeZero) {
		n.Zero += count
		return
	}
	n.Counts[nativeIndex(v, n.Schema)] += count
	for len(n.Counts) > nativeBuckets {
		wider := make(map[int32]uint64, nativeBuckets)
		for i, c := range n.Counts {
			wider[(i+1)>>1] += c
		}
		n.Schema, n.Counts = n.Schema-1, wider
	}
}

// nativeIndex returns the bucket of v: the least i with v <= 2^(i/2^schema).
func nativeIndex(v float64, schema int32) int32 {
	frac, exp := math.Frexp(v) // v = frac * 2^exp, frac in [0.5, 1)
	if schema <= 0 {
		e := int32(exp)
		if frac == 0.5 {
			e--
		}
		return (e + 1<<-schema - 1) >> -schema
	}
	per := int32(1) << schema
	i := int32(math.Ceil((math.Log2(frac) + 1) * float64(per)))
	// The logarithm may be off by one unit in the last place at a bound.
	if i > 0 && frac <= math.Exp2(float64(i-1)/float64(per)-1) {
		i--
	} else if frac > math.Exp2(float64(i)/float64(per)-1) {
		i++
	}
	return i + (int32(exp)-1)*per
}
