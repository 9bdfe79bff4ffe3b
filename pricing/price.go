// Package pricing turns usage into money with the price that held at the moment
// of the call. It knows models, tokens and dates; it knows nothing of the wire.
package pricing

// Price is what a call cost, or why that is not known.
type Price struct {
	USD      Money  // exact; only when Unpriced is empty
	Source   string // "list", "override", "provider"
	Version  string // of the price book, frozen when the call was made
	Unpriced string // reason; "" when priced
	// Savings is what cache reads saved against fresh input, less what cache writes
	// cost extra. May be negative.
	Savings    Money
	HasSavings bool
}
