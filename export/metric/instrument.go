// Package metric counts finished records: the measures of OpenTelemetry's GenAI
// conventions (v1.41) and tollwire's own beside them, in bounded memory. The
// exporters present what it holds; it knows no protocol.
package metric

import "strings"

// Kind is what a measure's points are.
type Kind uint8

const (
	Counter Kind = iota
	Gauge
	Distribution
)

// Instrument describes one measure.
type Instrument struct {
	Name   string // OpenTelemetry's: words with dots
	Unit   string // UCUM; {braces} are annotations
	Kind   Kind
	Help   string
	Sub    []string  // attributes beside those that every call's measures carry
	Bounds []float64 // Distribution: upper bounds of the buckets, inclusive
}

// PromName returns the name under Prometheus: dots become underscores, the unit and
// a counter's _total are appended, as OpenTelemetry's compatibility rules say. It knows
// the units "s", "By", "1", and annotations, which no name shows; another one would be
// named otherwise by who takes the measure over OTLP.
func (i *Instrument) PromName() string {
	n := PromLabel(i.Name)
	switch {
	case i.Unit == "s":
		n += "_seconds"
	case i.Unit == "By":
		n += "_bytes"
	case i.Unit == "1" && i.Kind == Gauge:
		n += "_ratio"
	}
	if i.Kind == Counter {
		n += "_total"
	}
	return n
}

// PromLabel returns the attribute's name as a Prometheus label.
func PromLabel(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, key)
}

// The measures of calls. The order is that of instruments.
const (
	clientTokens = iota
	clientDuration
	clientFirstChunk
	clientPerChunk
	serverDuration
	serverFirstToken
	serverPerToken
	firstContent
	firstVisible
	perOutputToken
	contentGap
	tokens
	calls
	cost
	savings
	overhead
	callCost
	expensiveCalls
	unpricedCalls
	unpricedTokens
	quality
	disagreement
	costDisagreement
	wasted
	retried
	apiCalls
	apiCost
	numInstruments
)

var (
	// The conventions' advice for gen_ai.*.
	tokenBounds      = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
	durationBounds   = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstTokenBounds = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	perTokenBounds   = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
	// Ours: fine where chat is felt, and with the edges that alerts ask for.
	firstBounds = []float64{0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60}
	gapBounds   = []float64{0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10}
	costBounds  = []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}
)

// expensive are the sums that alerts watch, the highest first. They are counted apart from
// call.cost.usd because native buckets have no edges there: those are powers of two.
var expensive = [...]struct {
	usd  float64
	name string
}{{0.5, "0.5"}, {0.05, "0.05"}}

// instruments returns the measures of calls by their numbers.
func instruments() [numInstruments]Instrument {
	return [numInstruments]Instrument{
		clientTokens:     {Name: "gen_ai.client.token.usage", Unit: "{token}", Kind: Distribution, Help: "Tokens a call used, input (with cache) and output (with reasoning).", Sub: []string{"gen_ai.token.type"}, Bounds: tokenBounds},
		clientDuration:   {Name: "gen_ai.client.operation.duration", Unit: "s", Kind: Distribution, Help: "Time of a call from the request's first byte to the response's last.", Bounds: durationBounds},
		clientFirstChunk: {Name: "gen_ai.client.operation.time_to_first_chunk", Unit: "s", Kind: Distribution, Help: "Time from the request's first byte to the response's first chunk of any kind; streams only.", Bounds: durationBounds},
		clientPerChunk:   {Name: "gen_ai.client.operation.time_per_output_chunk", Unit: "s", Kind: Distribution, Help: "Every gap between two chunks of any kind.", Bounds: durationBounds},
		serverDuration:   {Name: "gen_ai.server.request.duration", Unit: "s", Kind: Distribution, Help: "Time of a call as the process that served it saw it.", Bounds: durationBounds},
		serverFirstToken: {Name: "gen_ai.server.time_to_first_token", Unit: "s", Kind: Distribution, Help: "Time to the first content as the process that served it saw it.", Bounds: firstTokenBounds},
		serverPerToken:   {Name: "gen_ai.server.time_per_output_token", Unit: "s", Kind: Distribution, Help: "Mean time an output token after the first, as the process that served it saw it.", Bounds: perTokenBounds},
		firstContent:     {Name: "tollwire.time_to_first_content", Unit: "s", Kind: Distribution, Help: "Time from the request's first byte to the first content, reasoning included.", Bounds: firstBounds},
		firstVisible:     {Name: "tollwire.time_to_first_visible", Unit: "s", Kind: Distribution, Help: "Time from the request's first byte to the first content after reasoning.", Bounds: firstBounds},
		perOutputToken:   {Name: "tollwire.time_per_output_token", Unit: "s", Kind: Distribution, Help: "(last content - first content) / (output tokens - 1) of a call.", Bounds: perTokenBounds},
		contentGap:       {Name: "tollwire.content_gap", Unit: "s", Kind: Distribution, Help: "Every gap between two chunks of content.", Bounds: gapBounds},
		tokens:           {Name: "tollwire.tokens", Unit: "{token}", Kind: Counter, Help: "Tokens in disjoint classes: a sum over classes counts none twice.", Sub: []string{"class", "completeness"}},
		calls:            {Name: "tollwire.calls", Unit: "{call}", Kind: Counter, Help: "Calls seen, at each end that was seen.", Sub: []string{"status", "role", "relay"}},
		cost:             {Name: "tollwire.cost.usd", Unit: "{USD}", Kind: Counter, Help: "What calls cost, each counted once.", Sub: []string{"source"}},
		savings:          {Name: "tollwire.cost.savings.usd", Unit: "{USD}", Kind: Counter, Help: "What calls cost less than without the cause.", Sub: []string{"cause"}},
		overhead:         {Name: "tollwire.cost.overhead.usd", Unit: "{USD}", Kind: Counter, Help: "What calls cost more than without the cause: cache writes that nothing has read yet.", Sub: []string{"cause"}},
		callCost:         {Name: "tollwire.call.cost.usd", Unit: "{USD}", Kind: Distribution, Help: "What one call cost.", Bounds: costBounds},
		expensiveCalls:   {Name: "tollwire.expensive.calls", Unit: "{call}", Kind: Counter, Help: "Calls that cost more than so many USD, each under the highest sum that it passed.", Sub: []string{"over_usd"}},
		unpricedCalls:    {Name: "tollwire.unpriced.calls", Unit: "{call}", Kind: Counter, Help: "Calls without a price.", Sub: []string{"reason"}},
		unpricedTokens:   {Name: "tollwire.unpriced.tokens", Unit: "{token}", Kind: Counter, Help: "Tokens of calls without a price.", Sub: []string{"reason"}},
		quality:          {Name: "tollwire.quality", Unit: "{signal}", Kind: Counter, Help: "Signals of a bad answer.", Sub: []string{"signal"}},
		disagreement:     {Name: "tollwire.usage.disagreement", Unit: "{call}", Kind: Counter, Help: "Responses whose own usage figures contradict each other."},
		costDisagreement: {Name: "tollwire.cost.disagreement", Unit: "{call}", Kind: Counter, Help: "Calls whose cost, as the provider stated it, is more than 1 % off what the list says."},
		wasted:           {Name: "tollwire.cost.wasted.usd", Unit: "{USD}", Kind: Counter, Help: "What calls cost that failed or were cut.", Sub: []string{"cause"}},
		retried:          {Name: "tollwire.cost.retried.usd", Unit: "{USD}", Kind: Counter, Help: "What tries of a call after its first cost, however they ended."},
		apiCalls:         {Name: "tollwire.api.calls", Unit: "{call}", Kind: Counter, Help: "Calls to priced HTTP APIs that are no models, each counted once.", Sub: []string{"api", "status"}},
		apiCost:          {Name: "tollwire.api.cost.usd", Unit: "{USD}", Kind: Counter, Help: "What calls to priced HTTP APIs cost.", Sub: []string{"api"}},
	}
}
