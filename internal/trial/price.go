package trial

import (
	"math/big"
	"strings"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

// list are the prices of the clients' usual models, USD a million tokens, copied by
// hand from the providers' pages: what the agent's price book is held to.
var list = map[string]map[string]string{
	"gpt-4o-mini":       {"input": "0.15", "cache_read": "0.075", "output": "0.6", "reasoning": "0.6"},
	"claude-sonnet-4-5": {"input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6", "output": "15", "reasoning": "15"},
}

// Price computes what a completed call whose usage was stated must have cost, by
// hand: a plain decimal, or false for any other call. It shares no code with the
// agent's pricing.
func Price(e *sim.Entry) (usd string, ok bool) {
	if e.Outcome != "completed" || e.Stated != "exact" {
		return "", false
	}
	sum := new(big.Rat)
	for class, n := range e.Usage {
		if price, ok := new(big.Rat).SetString(list[e.Asked][class]); ok {
			sum.Add(sum, price.Mul(price, new(big.Rat).SetFrac64(int64(n), 1_000_000)))
		} else if n != 0 {
			return "", false
		}
	}
	return strings.TrimSuffix(strings.TrimRight(sum.FloatString(15), "0"), "."), true
}
