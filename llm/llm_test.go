package llm

import (
	"math"
	"testing"
	"time"
)

func TestClassNames(t *testing.T) {
	for c := range NumClasses {
		got, ok := ClassOf(c.String())
		if !ok || got != c {
			t.Errorf("ClassOf(%q) = %v, %v", c.String(), got, ok)
		}
		if c.IsToken() != (c.IsInput() || c.IsOutput()) {
			t.Errorf("%v: a token is either input or output", c)
		}
	}
	if Citation.String() != "citation" || Seconds.String() != "seconds" || Requests.String() != "requests" {
		t.Error("names out of step with classes")
	}
}

func TestUsageRefusesWhatCannotBe(t *testing.T) {
	var u Usage
	for _, n := range []float64{-1, math.NaN(), math.Inf(1), 1.5, MaxAmount * 2} {
		if u.Set(Input, n) || !u.Empty() {
			t.Errorf("Set(Input, %v) was taken", n)
		}
	}
	if !u.Set(Seconds, 1.5) || u.HasTokens() {
		t.Error("seconds may have a fraction and are no tokens")
	}
	u.Set(Input, 0)
	if n, ok := u.InputTotal(); n != 0 || !ok {
		t.Error("a stated zero is known")
	}
	if _, ok := u.OutputTotal(); ok {
		t.Error("output was never stated")
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var h Histogram
	for i := 1; i <= 1000; i++ {
		h.Add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond} {
		got := h.Quantile(q)
		if off := math.Abs(float64(got-want)) / float64(want); off > 1.0/16 {
			t.Errorf("q%v = %v, want %v, off by %.3f", q, got, want, off)
		}
	}
	if h.Max() != time.Second || h.N() != 1000 {
		t.Errorf("max %v, n %d", h.Max(), h.N())
	}
	n := 0
	h.Each(func(_ time.Duration, c int) { n += c })
	if n != 1000 {
		t.Errorf("Each gave %d", n)
	}
}
