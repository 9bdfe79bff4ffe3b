// Package account holds what is remembered across calls, and the finished record
// of one call as the exporters get it.
package account

import (
	"time"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// Record is one call with all its parts. Each stage adds its own part and edits
// none of another's; exporters read only.
type Record struct {
	Time  time.Time // wall clock of the request's first byte; zero when unknown
	Call  *llm.Call
	Owner attribution.Owner
	Price pricing.Price
	Relay Relay
	Trace Trace
	// Counted is true on exactly one record of a call that was seen more than once
	// on this node: the one whose tokens and money are summed.
	Counted bool
	// Origin is whom the tokens and money are booked to where that is not Owner: a
	// gateway's call to a provider is booked to the gateway's caller. Nil otherwise.
	Origin *attribution.Owner
}

// Booked returns whom the record's tokens and money are booked to.
func (r *Record) Booked() *attribution.Owner {
	if r.Origin != nil {
		return r.Origin
	}
	return &r.Owner
}

// Outcome is how a call ended. Its values are those of the metric label "status".
type Outcome string

const (
	OutcomeOK    Outcome = "ok"
	OutcomeError Outcome = "error" // by status, or in the body of a 200
	OutcomeCut   Outcome = "cut"   // one side went away before the end
)

// Outcome returns how the call ended.
func (r *Record) Outcome() Outcome {
	switch c := r.Call; {
	case c.ErrorType == "cut" || c.Partial == llm.PartialCut:
		return OutcomeCut
	case c.ErrorType != "" || c.InBandError || c.Status >= 400:
		return OutcomeError
	}
	return OutcomeOK
}

// Known reports whether both moments were seen, and the time between them; never negative.
func Known(from, to flow.Time) (time.Duration, bool) {
	return max(to.Sub(from), 0), from != 0 && to != 0
}

// PerOutputToken returns the mean time between output tokens, (last content − first
// content) / (output tokens − 1), and whether it means anything: more than one token,
// in more than one chunk.
func (r *Record) PerOutputToken() (time.Duration, bool) {
	t := &r.Call.Times
	d, ok := Known(t.FirstContent, t.LastContent)
	n, has := r.Call.Usage.OutputTotal()
	if !ok || !has || n < 2 || t.Chunks < 2 {
		return 0, false
	}
	return time.Duration(float64(d) / (n - 1)), true
}

// Relay is this record's place in a call that was seen more than once. To sum a set
// of records without counting a call twice, take those with no relay and the payers.
type Relay string

const (
	RelayNone   Relay = ""
	RelayOrigin Relay = "origin" // the program the call is booked to, where another end pays
	RelayHop    Relay = "hop"    // served it or passed it on: latency only
	RelayPayer  Relay = "payer"  // the end that sums tokens and money
)

// Trace ties the record to a trace.
type Trace struct {
	TraceID string // 32 hex digits
	SpanID  string // 16 hex digits
	Parent  string // 16 hex digits; "" for a root
	Source  string // "header" when the program sent one, "agent" when we made it
}
