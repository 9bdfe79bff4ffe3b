package machine

import (
	"testing"
	"time"

	"github.com/tollwire/tollwire/pricing"
)

func money(t *testing.T, s string) pricing.Money {
	t.Helper()
	m, err := pricing.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestHours(t *testing.T) {
	rate := pricing.Hourly{Fixed: money(t, "4"), Variable: money(t, "0.5")}
	ten := time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)
	min := func(m int) time.Time { return ten.Add(time.Duration(m) * time.Minute) }
	m := newWatch(rate, ten)

	// Two calls that overlap: 15 minutes of an hour busy.
	m.add(min(0), min(10), 1000, 500)
	m.add(min(5), min(15).Add(-time.Nanosecond), 2000, 500)
	got := m.costs(min(60).Add(-time.Nanosecond))
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	h := got[0]
	if h.Busy < 899.9 || h.Busy > 900.2 || h.Served != (Served{2, 3000, 1000}) {
		t.Errorf("%+v", h)
	}
	near := func(what string, got pricing.Money, want float64) {
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
	m.add(min(59), min(61), 10, 0)
	got = m.costs(min(90))
	if len(got) != 2 || got[0].Served.Calls != 2 || got[1].Served.Calls != 1 || got[0].Busy < 959 || got[1].Busy < 60 || got[1].Seconds != 1800 {
		t.Errorf("%+v", got)
	}
	// An answer that is late, but not too late; and one that is.
	m.add(min(20), min(21), 1, 1)
	m.add(min(-200), min(-190), 1, 1)
	if got = m.costs(min(90)); got[0].Served.Calls != 3 || m.late != 1 {
		t.Errorf("%+v, late %d", got, m.late)
	}
	// Hours without a call are all idle and have no price a token.
	got = m.costs(min(60 * 5).Add(30 * time.Minute))
	if len(got) != 2 || got[0].PerMtok != nil || got[0].Idle != money(t, "4") || got[1].Idle != money(t, "2") || !got[1].Variable.IsZero() {
		t.Errorf("%+v", got)
	}
}

func TestWatchBeginsWithinAnHour(t *testing.T) {
	ten := time.Date(2026, 7, 1, 10, 45, 0, 0, time.UTC)
	m := newWatch(pricing.Hourly{Fixed: money(t, "4")}, ten)
	got := m.costs(ten.Add(15*time.Minute - 1))
	if len(got) != 1 || got[0].Seconds > 900 || got[0].Fixed.Cmp(money(t, "1")) > 0 {
		t.Errorf("the time before it watched is not charged: %+v", got)
	}
}
