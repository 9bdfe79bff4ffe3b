package main

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// late is who names the pod of a process only when it is asked for the nth time.
type late struct{ asked, nth int }

func (l *late) Observe(flow.Proc, uint64) {}

func (l *late) Owner(flow.Proc, uint64, attribution.Evidence) attribution.Owner {
	l.asked++
	return attribution.Owner{PodUID: "u", Complete: l.asked >= l.nth}
}

// kept is an exporter that remembers.
type kept []*account.Record

func (k *kept) Export(r *account.Record) { *k = append(*k, r) }

// A call waits for its pod's name, within bounds, and one that goes out without it
// is counted.
func TestIncomplete(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	prices, err := defaults().Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		owners     *late
		wait       time.Duration
		incomplete uint64
	}{
		{"named at once", &late{nth: 1}, time.Minute, 0},
		{"named when it is asked again", &late{nth: 2}, time.Minute, 0},
		{"never named", &late{nth: 1000}, time.Millisecond, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out kept
			p := &pipeline{
				log: log, owners: c.owners, prices: prices, export: []exporter{&out}, tick: time.Millisecond,
				stamp: func(*llm.Call) time.Time { return time.Now() },
				settle: account.Config{Wait: time.Millisecond, OwnerWait: c.wait, Owner: func(*account.Record) attribution.Owner {
					return c.owners.Owner(flow.Proc{}, 0, attribution.Evidence{})
				}},
			}
			calls := make(chan *llm.Call, 1)
			calls <- recordtest.New().Call
			close(calls)
			p.finish(calls)
			if len(out) != 1 || p.incomplete.Load() != c.incomplete || out[0].Owner.Complete != (c.incomplete == 0) {
				t.Errorf("%d records, %d counted as incomplete, want %d", len(out), p.incomplete.Load(), c.incomplete)
			}
		})
	}
}
