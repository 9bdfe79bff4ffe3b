// Package account holds what is remembered across calls, and the finished record
// of one call as the exporters get it.
package account

import (
	"time"

	"github.com/tollwire/tollwire/attribution"
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
}

// Relay is this record's place in a call that was seen more than once.
type Relay string

const (
	RelayNone   Relay = ""
	RelayOrigin Relay = "origin" // the program the call is booked to
	RelayHop    Relay = "hop"    // passed it on: latency only
	RelayPayer  Relay = "payer"  // the end that sums tokens and money
)

// Trace ties the record to a trace.
type Trace struct {
	TraceID string // 32 hex digits
	SpanID  string // 16 hex digits
	Parent  string // 16 hex digits; "" for a root
	Source  string // "header" when the program sent one, "agent" when we made it
}
