package metric

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tollwire/tollwire/llm"
)

func TestNativeIndex(t *testing.T) {
	for _, schema := range []int32{3, 2, 1, 0, -1, -2, -4} {
		base := math.Pow(2, math.Pow(2, -float64(schema)))
		check := func(v float64) {
			i := nativeIndex(v, schema)
			upper, lower := math.Pow(base, float64(i)), math.Pow(base, float64(i-1))
			if v > upper*(1+1e-14) || v <= lower*(1-1e-14) {
				t.Errorf("schema %d: %v in bucket %d (%v, %v]", schema, v, i, lower, upper)
			}
		}
		for range 2000 {
			check(math.Exp(rand.Float64()*40 - 20))
		}
		for e := -20; e < 20; e++ { // a power of two is its own bucket's upper bound
			v := math.Ldexp(1, e)
			check(v)
			if i := nativeIndex(v, schema); schema >= 0 && i != int32(e)<<schema {
				t.Errorf("schema %d: 2^%d in bucket %d", schema, e, i)
			}
		}
	}
}

func TestNativeIsBounded(t *testing.T) {
	n := &Native{Schema: nativeSchema, Counts: map[int32]uint64{}}
	for range 100_000 {
		n.add(math.Exp(rand.Float64()*60-30), 1)
	}
	n.add(0, 5)
	n.add(math.NaN(), 1)
	total := n.Zero
	for i, c := range n.Counts {
		total += c
		if base := math.Pow(2, math.Pow(2, -float64(n.Schema))); math.Pow(base, float64(i)) < 1e-14 {
			t.Errorf("bucket %d of schema %d", i, n.Schema)
		}
	}
	if len(n.Counts) > nativeBuckets || n.Schema >= nativeSchema || total != 100_006 {
		t.Errorf("%d buckets, schema %d, %d counted", len(n.Counts), n.Schema, total)
	}
}

// Merging a call's gaps gives what observing each would, to the width of a bucket.
func TestMergeIsLikeObservingEach(t *testing.T) {
	var gaps llm.Histogram
	each := &Histogram{Buckets: make([]uint64, len(gapBounds)+1)}
	for range 5000 {
		d := time.Duration(rand.ExpFloat64() * float64(20*time.Millisecond))
		gaps.Add(d)
		each.add(gapBounds, d.Seconds(), 1)
	}
	merged := &Histogram{Buckets: make([]uint64, len(gapBounds)+1)}
	merged.merge(gapBounds, &gaps)
	if merged.Count != each.Count || math.Abs(merged.Sum-each.Sum) > 1e-9 {
		t.Errorf("count %d, %d; sum %v, %v", merged.Count, each.Count, merged.Sum, each.Sum)
	}
	var a, b uint64
	for i, bound := range gapBounds {
		a, b = a+merged.Buckets[i], b+each.Buckets[i]
		if off := math.Abs(float64(a)-float64(b)) / 5000; off > 0.05 {
			t.Errorf("up to %v: %d, want %d", bound, a, b)
		}
	}
}

func TestPromNames(t *testing.T) {
	insts := instruments()
	for i, want := range map[int]string{
		clientTokens: "gen_ai_client_token_usage", clientDuration: "gen_ai_client_operation_duration_seconds",
		tokens: "tollwire_tokens_total", cost: "tollwire_cost_usd_total", savings: "tollwire_cost_savings_usd_total",
		callCost: "tollwire_call_cost_usd", expensiveCalls: "tollwire_expensive_calls_total", unpricedCalls: "tollwire_unpriced_calls_total", contentGap: "tollwire_content_gap_seconds",
	} {
		if got := insts[i].PromName(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, i := range insts {
		if i.Name == "" || i.Help == "" || len(i.Sub) > 3 {
			t.Errorf("%+v", i)
		}
	}
}

// The rules of opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics.
func TestPromName(t *testing.T) {
	for want, i := range map[string]Instrument{
		"tollwire_x_seconds":         {Name: "tollwire.x", Unit: "s", Kind: Distribution},
		"tollwire_x_y_bytes_total":   {Name: "tollwire.x_y", Unit: "By", Kind: Counter},
		"tollwire_x_ratio":           {Name: "tollwire.x", Unit: "1", Kind: Gauge},
		"tollwire_x_total":           {Name: "tollwire.x", Unit: "1", Kind: Counter},
		"tollwire_x":                 {Name: "tollwire.x", Unit: "{limit}", Kind: Gauge},
		"tollwire_x_gib_hours_total": {Name: "tollwire.x.gib_hours", Unit: "{GiBy.h}", Kind: Counter},
	} {
		if got := i.PromName(); got != want {
			t.Errorf("%+v is %s, want %s", i, got, want)
		}
	}
}
