package conformance

import (
	"fmt"
	"math/big"
	"slices"

	"github.com/tollwire/tollwire/decoder/openai"
	"github.com/tollwire/tollwire/llm"
)

// Field is something of a call that is compared.
type Field uint8

const (
	Recognised Field = iota
	Provider
	Operation
	Models
	ID
	Stream
	Finish
	Usage
	Error
	Cost
	NumFields
)

func (f Field) String() string {
	return [...]string{"recognised", "provider", "operation", "models", "id", "stream", "finish", "usage", "error", "cost"}[f]
}

// Miss is one field of one case that is not what was expected.
type Miss struct {
	ID, Family, Framing string
	Field               Field
	Got, Want           string
	Sure                bool // the expectation is: always, but for some usages
	Flagged             bool // of usage: the record itself says that it is not to be trusted
}

// Compare holds a call against its expectation; call is nil when none came out.
func Compare(call *llm.Call, want *Expected) []Miss {
	var misses []Miss
	miss := func(f Field, got, want any) {
		misses = append(misses, Miss{Field: f, Got: fmt.Sprint(got), Want: fmt.Sprint(want), Sure: true})
	}
	if call == nil {
		miss(Recognised, "no call", "a call")
	} else {
		compare(call, want, miss)
		if got, ok := usage(call, want); !ok {
			miss(Usage, got, fmt.Sprint(want.Usage, want.Doubts))
			m := &misses[len(misses)-1]
			m.Sure = want.UsagePresent && want.UsageSure
			m.Flagged = call.Completeness != llm.Exact || call.Disagreement != ""
		}
	}
	for i := range misses {
		misses[i].ID, misses[i].Family, misses[i].Framing = want.ID, want.Family, want.Framing
	}
	return misses
}

func compare(c *llm.Call, want *Expected, miss func(f Field, got, want any)) {
	text := func(f Field, got string, want *string) {
		if want == nil && got != "" {
			miss(f, got, "none")
		} else if want != nil && got != *want {
			miss(f, fmt.Sprintf("%q", got), *want)
		}
	}
	if want.Provider != nil { // else the conventions have no name for it
		text(Provider, c.Provider, want.Provider)
	}
	text(Operation, c.Operation, &want.Operation)
	text(Models, c.RequestModel, want.RequestModel)
	text(Models, c.ResponseModel, want.ResponseModel)
	text(ID, c.ResponseID, want.ResponseID)
	if c.Stream != want.Stream {
		miss(Stream, c.Stream, want.Stream)
	}
	var reasons []string
	for _, r := range want.FinishReasons {
		reasons = append(reasons, fmt.Sprint(r))
	}
	if !slices.Equal(c.FinishReasons, reasons) {
		miss(Finish, c.FinishReasons, reasons)
	}
	if got := c.InBandError || c.Status >= 400; got != want.Error {
		miss(Error, got, want.Error)
	}
	if got, ok := usd(c); !ok {
		miss(Cost, c.StatedCost, "a decimal")
	} else if (got == nil) != (want.StatedCost == nil) {
		miss(Cost, got, want.StatedCost)
	} else if got != nil {
		if w, ok := new(big.Rat).SetString(*want.StatedCost); !ok || got.Cmp(w) != 0 {
			miss(Cost, got.FloatString(12), *want.StatedCost)
		}
	}
}

// usd is what the provider says the call costs, nil when it says nothing.
func usd(c *llm.Call) (cost *big.Rat, ok bool) {
	if c.StatedCost == "" {
		return nil, true
	}
	cost, ok = new(big.Rat).SetString(c.StatedCost)
	if ok && c.StatedCostSource == openai.CostTicks {
		cost.Mul(cost, big.NewRat(1, 1e10))
	}
	return cost, ok
}

// parts are the classes of llm that make up a class of the expectations, where audio,
// images and the provider's own tools count as input or output.
var parts = map[string][]llm.Class{
	"input":          {llm.Input, llm.InputAudio, llm.InputImage, llm.InputVideo, llm.ToolInput},
	"cache_read":     {llm.CacheRead, llm.CacheReadAudio},
	"cache_write":    {llm.CacheWrite},
	"cache_write_5m": {llm.CacheWrite5m},
	"cache_write_1h": {llm.CacheWrite1h},
	"output":         {llm.Output, llm.OutputAudio, llm.OutputImage, llm.Citation},
	"reasoning":      {llm.Reasoning},
}

// usage reports whether the call states the expected usage as exact, or no exact
// usage of tokens where none is expected.
func usage(c *llm.Call, want *Expected) (got string, ok bool) {
	sums := make(map[string]float64)
	for name, classes := range parts {
		for _, k := range classes {
			sums[name] += c.Usage.Get(k)
		}
	}
	got = fmt.Sprint(sums, " ", c.Completeness, " ", c.Disagreement)
	if !want.UsagePresent {
		return got, c.Completeness != llm.Exact || !c.Usage.HasTokens()
	}
	for name, n := range want.Usage {
		if sums[name] != n {
			return got, false
		}
	}
	return got, c.Completeness == llm.Exact
}
