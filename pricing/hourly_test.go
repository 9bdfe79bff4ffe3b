package pricing

import (
	"testing"
	"time"
)

func TestMachine(t *testing.T) {
	b := testBook(t)
	rate, ok := b.Hourly("rack")
	if !ok || rate.Fixed != mustMoney(t, "4") || rate.Variable != mustMoney(t, "0.5") {
		t.Fatal(rate, ok)
	}
	if id, ok := b.SelfHosted("vllm.svc", "/v1/chat/completions"); !ok || id != "rack" {
		t.Fatal(id, ok)
	}
	ten := at(t, "2026-07-01T10:00:00Z")
	min := func(m int) time.Time { return ten.Add(time.Duration(m) * time.Minute) }
	m := NewMachine(rate, ten)

	// Two calls that overlap: 15 minutes of an hour busy.
	m.Add(min(0), min(10), 1000, 500)
	m.Add(min(5), min(15).Add(-time.Nanosecond), 2000, 500)
	got := m.Hours(min(60).Add(-time.Nanosecond))
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	h := got[0]
	if h.Busy < 899.9 || h.Busy > 900.2 || h.Served != (Served{2, 3000, 1000}) {
		t.Errorf("%+v", h)
	}
	near := func(what string, got Money, want float64) {
		t.Helper()
		if off := got.Float64() - want; off > want/1000+1e-9 || off < -want/1000-1e-9 {
			t.Errorf("%s: %s, want %v", what, got, want)
		}
	}
	near("fixed", h.Fixed, 4)
	near("idle", h.Idle, 3)
	near("variable", h.Variable, 0.125)
	near("a million tokens while busy", h.PerMtok.Busy, 1.125/4000*1e6)
	near("a million tokens with idle time", h.PerMtok.Full, 4.125/4000*1e6)
	if u := h.PerMtok.Utilisation; u < 0.249 || u > 0.251 {
		t.Errorf("utilisation %v", u)
	}

	// A call across the hour counts in both, its tokens where it ended.
	m.Add(min(59), min(61), 10, 0)
	got = m.Hours(min(90))
	if len(got) != 2 || got[0].Served.Calls != 2 || got[1].Served.Calls != 1 || got[0].Busy < 959 || got[1].Busy < 60 || got[1].Seconds != 1800 {
		t.Errorf("%+v", got)
	}
	// An answer that is late, but not too late; and one that is.
	m.Add(min(20), min(21), 1, 1)
	m.Add(min(-200), min(-190), 1, 1)
	if got = m.Hours(min(90)); got[0].Served.Calls != 3 || m.Late() != 1 {
		t.Errorf("%+v, late %d", got, m.Late())
	}
	// Hours without a call are all idle and have no price a token.
	got = m.Hours(min(60 * 5).Add(30 * time.Minute))
	if len(got) != 2 || got[0].PerMtok != nil || got[0].Idle != mustMoney(t, "4") || got[1].Idle != mustMoney(t, "2") || !got[1].Variable.IsZero() {
		t.Errorf("%+v", got)
	}
}

func TestMachineBeginsWithinAnHour(t *testing.T) {
	ten := at(t, "2026-07-01T10:45:00Z")
	m := NewMachine(Hourly{Fixed: mustMoney(t, "4")}, ten)
	got := m.Hours(ten.Add(15*time.Minute - 1))
	if len(got) != 1 || got[0].Seconds > 900 || got[0].Fixed.Cmp(mustMoney(t, "1")) > 0 {
		t.Errorf("the time before it watched is not charged: %+v", got)
	}
}
