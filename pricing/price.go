// Package pricing turns usage into money with the price that held at the moment
// of the call. It knows models, tokens and dates; it knows nothing of the wire.
package pricing

// Price is what a call cost, or why that is not known.
type Price struct {
	USD      Money  // exact; only when Unpriced is empty
	Source   string // SourceList, SourceOverride, SourceProvider; "" when unpriced
	Version  string // of the price book, frozen when the call was made
	Unpriced string // reason, one of the Reason constants; "" when priced
	// Free says why a price is zero although the list knows one: FreeByContract.
	Free string
	// List is what the list says, also where a stated cost or a contract went before it.
	List    Money
	HasList bool
	// Disagrees is set when the provider's stated cost and the list differ by more than 1 %.
	Disagrees bool
	// Savings is what cache reads saved against fresh input, less what cache writes
	// cost extra, by the same prices. May be negative.
	Savings    Money
	HasSavings bool
}

// Priced reports whether USD is known.
func (p *Price) Priced() bool { return p.Unpriced == "" }

// Where a price comes from.
const (
	SourceOverride = "override" // a contract in the config
	SourceProvider = "provider" // stated on the wire
	SourceList     = "list"     // the price book
)

// FreeByContract is Price.Free when an override says that the call costs nothing.
const FreeByContract = "free_by_contract"

// Reasons why a call has no price. None of them is a price of zero.
const (
	ReasonUnknownProvider = "unknown_provider"   // no provider of that name or endpoint in the book
	ReasonUnlistedHost    = "unlisted_host"      // the host is none of the provider's: a gateway or server of one's own
	ReasonUnknownModel    = "unknown_model"      // the provider has no such model in the book
	ReasonUsageMissing    = "usage_missing"      // nothing stated, nothing counted
	ReasonNoAnswer        = "no_answer"          // a priced API's answer, which says whether it is billed, was not seen
	ReasonErrorAnswer     = "error_answer"       // an error without usage: providers bill none
	ReasonUnknownTier     = "unknown_tier"       // the served tier has no price in the book
	ReasonNoPriceAtTime   = "no_price_at_time"   // the model's prices begin later or ended before
	ReasonNoPriceForClass = "no_price_for_class" // a class of tokens, or a fee, has no price
	ReasonNoModelCall     = "no_model_call"      // a tool's own call: it has no model and no tokens
	ReasonSubscription    = "subscription"       // paid by a flat fee: no price a call
	ReasonSelfHosted      = "self_hosted"        // paid by the hour: no price a token
	ReasonOutOfRange      = "out_of_range"       // amounts beyond what money holds
)

// Gap reports whether a reason is a gap of the book or the config, which someone
// can close, and not how the call is paid for or what it is.
func Gap(reason string) bool {
	switch reason {
	case "", ReasonNoAnswer, ReasonErrorAnswer, ReasonNoModelCall, ReasonSubscription, ReasonSelfHosted:
		return false
	}
	return true
}
