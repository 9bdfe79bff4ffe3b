package unpriced

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

func call(model string, tokens float64, reason string) *account.Record {
	return recordtest.New(func(r *account.Record) {
		r.Call.ResponseModel, r.Price.Unpriced = model, reason
		r.Call.Usage = llm.Usage{}
		r.Call.Usage.Set(llm.Input, tokens)
		r.Call.Usage.Set(llm.Searches, 7)
	})
}

// TestWhatCounts: the book's gaps, once a call.
func TestWhatCounts(t *testing.T) {
	var ta Tally
	ta.Add(call("gpt-99", 10, pricing.ReasonUnknownModel))
	ta.Add(call("gpt-4o", 10, ""))
	ta.Add(call("gpt-4o", 10, pricing.ReasonErrorAnswer))
	ta.Add(call("gpt-4o", 10, pricing.ReasonSubscription))
	twin := call("gpt-99", 10, pricing.ReasonUnknownModel)
	twin.Counted = false
	ta.Add(twin)
	ta.Add(recordtest.New(recordtest.API("geocoder"), func(r *account.Record) { r.Price.Unpriced = pricing.ReasonNoPriceAtTime }))
	want := []Model{
		{"openai", "api.openai.com", "gpt-99", pricing.ReasonUnknownModel, 1, 10},
		{"", "api.geocoder.example", "geocoder", pricing.ReasonNoPriceAtTime, 1, 0},
	}
	if top := ta.Top(); fmt.Sprint(top) != fmt.Sprint(want) {
		t.Errorf("%+v", top)
	}
}

func TestBounds(t *testing.T) {
	var ta Tally
	for i := range 2 * maxModels {
		ta.Add(call(fmt.Sprintf("small-%d", i), 1, pricing.ReasonUnknownModel))
		ta.Add(call("large", 100, pricing.ReasonUnknownModel))
	}
	ta.Add(call("large", 5, pricing.ReasonUnknownTier))
	top := ta.Top()
	if len(top) != maxModels || top[0].Model != "large" || top[0].Tokens != 2*maxModels*100 || top[0].Calls != 2*maxModels ||
		top[1].Reason != pricing.ReasonUnknownTier {
		t.Errorf("%d, %+v", len(top), top[:2])
	}
	ta.Add(call(strings.Repeat("x", 1000), 1e6, pricing.ReasonUnknownModel))
	if m := ta.Top()[0]; len(m.Model) != maxName {
		t.Errorf("a name of %d bytes", len(m.Model))
	}
}
