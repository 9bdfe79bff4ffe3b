package pricing

import (
	"math"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Price says what a call cost. A contract in the config goes before the provider's
// stated cost, which goes before the list.
func (b *Book) Price(q Query) Price {
	if q.API != "" {
		return b.priceAPI(&q)
	}
	out := Price{Version: b.version}
	p, reason := b.provider(&q)
	r := b.resolve(p, q.Model, q.RequestModel)
	m := b.moment(p, &q)

	var l list
	switch {
	case q.Operation == executeTool:
		reason = ReasonNoModelCall
	case reason != "":
	case p.subscription:
		reason = ReasonSubscription
	case p.selfHosted:
		reason = ReasonSelfHosted
	case q.Usage == nil || q.Usage.Empty():
		if reason = ReasonUsageMissing; q.Failed {
			reason = ReasonErrorAnswer
		}
	case r.model == nil:
		reason = ReasonUnknownModel
	default:
		if l, reason = listPrice(r.model.cards, r.adjust, &m, &q); reason == "" {
			out.List, out.HasList = l.usd, true
			out.Savings, out.HasSavings = l.savings, l.cached
		}
	}

	if o := r.contract(&q, &m); o != nil && o.apply(&out, l, reason, &m, &q) {
		return out
	}
	if usd, ok := b.statedCost(p, &q); ok {
		out.USD, out.Source = usd, SourceProvider
		out.Disagrees = out.HasList && apart(usd, out.List)
		return out
	}
	if reason != "" {
		out.Unpriced = reason
		return out
	}
	out.USD, out.Source = l.usd, SourceList
	return out
}

// executeTool is the gen_ai.operation.name of a tool's own call.
const executeTool = "execute_tool"

// moment places a query in time, tier, region and volume.
func (b *Book) moment(p *provider, q *Query) moment {
	m := moment{at: q.At, tier: lower(q.ServiceTier), region: lower(q.Region)}
	if m.at.IsZero() {
		m.at = b.date
	}
	if standardTiers[m.tier] {
		m.tier = ""
	}
	if p != nil {
		if p.billedAtEnd && !q.End.IsZero() {
			m.at = q.End
		}
		if p.tiers[m.tier] {
			m.tier = ""
		}
		if len(p.volume) > 0 {
			m.volume = p.volume[month(m.at)]
		}
	}
	m.unix = m.at.Unix()
	return m
}

// standardTiers are the words providers use for the tier that list prices are for.
var standardTiers = map[string]bool{
	"": true, "default": true, "standard": true, "auto": true, "on_demand": true, "on-demand": true,
	"ondemand": true, "standard_only": true, "none": true,
}

// lower is strings.ToLower, which does not allocate where nothing changes.
func lower(s string) string { return strings.ToLower(s) }

// list is a computed price.
type list struct {
	usd     Money
	savings Money
	cached  bool // anything was read from or written to a cache
}

// listPrice prices q by the last card that holds.
func listPrice(cards []*card, adjusts []*adjust, m *moment, q *Query) (list, string) {
	c, byTier, reason := pick(cards, m)
	if c == nil {
		return list{}, reason
	}
	var few [8]*adjust
	active, tierPriced := few[:0], byTier
	for _, a := range adjusts {
		if !a.restHolds(m) {
			continue
		}
		switch {
		case len(a.tiers) == 0: // holds in every tier
		case byTier || !a.tierHolds(m.tier): // the card's prices are the tier's own
			continue
		default:
			tierPriced = true
		}
		active = append(active, a)
	}
	if m.tier != "" && !tierPriced {
		return list{}, ReasonUnknownTier
	}
	return c.price(active, q)
}

// pick returns the last card that holds. A card of the served tier goes before one
// of the standard tier, which then needs an adjustment for the tier.
func pick(cards []*card, m *moment) (c *card, byTier bool, reason string) {
	reason = ReasonNoPriceAtTime
	standard := *m
	standard.tier = ""
	var fallback *card
	for i := len(cards) - 1; i >= 0; i-- {
		c := cards[i]
		if !c.restHolds(m) {
			continue
		}
		if c.tierHolds(m.tier) {
			return c, m.tier != "", ""
		}
		if fallback == nil && c.tierHolds("") {
			fallback = c
		}
		reason = ReasonUnknownTier
	}
	if fallback != nil {
		return fallback, false, ""
	}
	return nil, false, reason
}

// price adds up what every class costs.
func (c *card) price(adjusts []*adjust, q *Query) (out list, reason string) {
	u := q.Usage
	r := &c.base
	if len(c.steps) > 0 {
		if c.steps[0].marginal {
			return c.graduated(adjusts, q)
		}
		context, _ := u.InputTotal()
		for i := range c.steps {
			if s := &c.steps[i]; context > s.over {
				r = &s.rates
			}
		}
	}

	var a adder
	a.adjusts = adjusts
	for class := range llm.NumClasses {
		if !u.Has(class) {
			continue
		}
		n := u.Get(class)
		if n == 0 {
			a.stated = true
			continue
		}
		usd, ok := r.rate(class, &q.Hints)
		if !ok {
			if class.IsToken() || class == llm.Searches {
				return out, ReasonNoPriceForClass
			}
			a.loose = true // a count beside the tokens that nothing is charged for
			continue
		}
		a.add(class, usd, n)
	}
	a.saved(r, u)
	return a.finish(r, q)
}

// graduated lays the tokens in the order of the context and prices each part by
// the step it lies in.
func (c *card) graduated(adjusts []*adjust, q *Query) (out list, reason string) {
	u := q.Usage
	var a adder
	a.adjusts = adjusts
	position := 0.0
	for _, class := range contextOrder {
		n := u.Get(class)
		for n > 0 {
			r, end := &c.base, math.Inf(1)
			for i := range c.steps {
				if s := &c.steps[i]; position >= s.over {
					r = &s.rates
				} else {
					end = s.over
					break
				}
			}
			part := min(n, end-position)
			usd, ok := r.rate(class, &q.Hints)
			if !ok {
				return out, ReasonNoPriceForClass
			}
			a.add(class, usd, part)
			a.savedPart(r, class, part)
			position += part
			n -= part
		}
	}
	a.stated = u.HasTokens()
	for class := llm.Seconds; class < llm.NumClasses; class++ {
		n := u.Get(class)
		if n == 0 {
			continue
		}
		if usd, ok := c.base.rate(class, &q.Hints); ok {
			a.add(class, usd, n)
		} else if class == llm.Searches {
			return out, ReasonNoPriceForClass
		} else {
			a.loose = true
		}
	}
	return a.finish(&c.base, q)
}

// contextOrder is where tokens stand in a context: the cached prefix, what is newly
// cached, what is fresh, then what is written.
var contextOrder = [...]llm.Class{
	llm.CacheRead, llm.CacheReadAudio, llm.CacheWrite1h, llm.CacheWrite5m, llm.CacheWrite,
	llm.Input, llm.InputAudio, llm.InputImage, llm.InputVideo, llm.ToolInput,
	llm.Reasoning, llm.Output, llm.OutputAudio, llm.OutputImage, llm.Citation,
}

// rate returns the price of one unit of a class.
func (r *rates) rate(c llm.Class, h *llm.CostHints) (Money, bool) {
	if r.sized != nil {
		if by := r.sized[c]; by != nil {
			return sizedRate(by, c, h)
		}
	}
	return r.usd[c], r.has&(1<<c) != 0
}

func sizedRate(by map[string]Money, c llm.Class, h *llm.CostHints) (usd Money, ok bool) {
	if c == llm.Images {
		size, quality := lower(h.ImageSize), lower(h.ImageQuality)
		if usd, ok = by[size+"/"+quality]; ok {
			return usd, true
		}
		if usd, ok = by[size]; ok {
			return usd, true
		}
		if usd, ok = by["/"+quality]; ok {
			return usd, true
		}
	} else if usd, ok = by[lower(h.SearchContextSize)]; ok {
		return usd, true
	}
	usd, ok = by["default"]
	return usd, ok
}

// adder sums costs and savings.
type adder struct {
	adjusts []*adjust
	usd     Money
	savings Money
	cached  bool
	priced  bool // a class has a price
	stated  bool // a class was stated as zero
	loose   bool // a unit that is no token has no price
}

func (a *adder) add(c llm.Class, usd Money, n float64) {
	a.usd = a.usd.Add(a.adjusted(c, times(usd, n)))
	a.priced = true
}

func (a *adder) adjusted(c llm.Class, usd Money) Money {
	for _, f := range a.adjusts {
		if f.classes&(1<<c) != 0 {
			usd = usd.MulDiv(f.times, factorOne)
		}
	}
	return usd
}

// times returns usd×n. Fractions of a unit (seconds) count to the nanosecond.
func times(usd Money, n float64) Money {
	if n == math.Trunc(n) {
		return usd.Mul(uint64(n))
	}
	return usd.MulDiv(uint64(math.Round(n*1e9)), 1e9)
}

func (a *adder) saved(r *rates, u *llm.Usage) {
	for c := llm.CacheRead; c <= llm.CacheReadAudio; c++ {
		if n := u.Get(c); n > 0 {
			a.savedPart(r, c, n)
		}
	}
}

// savedPart counts what n cached tokens saved against fresh input.
func (a *adder) savedPart(r *rates, c llm.Class, n float64) {
	fresh := llm.Input
	switch c {
	case llm.CacheRead, llm.CacheWrite, llm.CacheWrite5m, llm.CacheWrite1h:
	case llm.CacheReadAudio:
		fresh = llm.InputAudio
	default:
		return
	}
	if r.has&(1<<fresh) == 0 {
		return
	}
	a.savings = a.savings.Add(a.adjusted(c, times(r.usd[fresh].Sub(r.usd[c]), n)))
	a.cached = true
}

// finish adds the fees that hang on the request itself.
func (a *adder) finish(r *rates, q *Query) (list, string) {
	if !q.Usage.Has(llm.Requests) {
		if usd, ok := r.rate(llm.Requests, &q.Hints); ok {
			a.add(llm.Requests, usd, 1)
		}
	}
	for name, n := range q.Hints.ToolRequests {
		search := strings.HasPrefix(name, "web_search")
		if n <= 0 || search && q.Usage.Has(llm.Searches) { // stated twice
			continue
		}
		usd, ok := r.tools[name]
		if !ok && search {
			if usd, ok = r.rate(llm.Searches, &q.Hints); !ok {
				return list{}, ReasonNoPriceForClass
			}
		}
		if ok {
			a.usd = a.usd.Add(usd.Mul(uint64(n)))
		}
	}
	switch {
	case !a.priced && (a.loose || !a.stated):
		return list{}, ReasonNoPriceForClass
	case a.usd.saturated():
		return list{}, ReasonOutOfRange
	}
	return list{a.usd, a.savings, a.cached}, ""
}

// contract returns the first override that holds.
func (r *resolved) contract(q *Query, m *moment) *override {
	for _, o := range r.overrides {
		if !o.restHolds(m) || !o.anyTier && !o.tierHolds(m.tier) {
			continue
		}
		if len(o.hosts) == 0 {
			return o
		}
		for i := range o.hosts {
			if o.hosts[i].match(q.Host, q.Path) {
				return o
			}
		}
	}
	return nil
}

// apply prices by contract; false leaves the price to the next in line.
func (o *override) apply(out *Price, l list, reason string, m *moment, q *Query) bool {
	switch {
	case o.subscription:
		out.Unpriced = ReasonSubscription
		return true
	case o.free:
		out.USD, out.Free = Money{}, FreeByContract
	case len(o.cards) > 0:
		if q.Usage == nil || q.Usage.Empty() {
			return false
		}
		own, why := listPrice(o.cards, nil, m, q)
		if why != "" {
			out.Unpriced = why
			return true
		}
		out.USD = own.usd
		out.Savings, out.HasSavings = own.savings, own.cached
	case reason != "":
		return false // a discount on no price
	default:
		out.USD = l.usd.MulDiv(o.times, factorOne)
		if l.cached {
			out.Savings = l.savings.MulDiv(o.times, factorOne)
		}
	}
	out.Source = SourceOverride
	return true
}

// statedCost reads the provider's own figure where its unit is known.
func (b *Book) statedCost(p *provider, q *Query) (Money, bool) {
	if q.StatedCost == "" {
		return Money{}, false
	}
	unit, ok := b.stated[q.StatedCostSource]
	if p != nil {
		if own, found := p.stated[q.StatedCostSource]; found {
			unit, ok = own, true
		}
	}
	if !ok {
		return Money{}, false
	}
	usd, err := roundDecimal(q.StatedCost, moneyDecimals-unit.decimals)
	usd = usd.Mul(unit.coefficient)
	return usd, err == nil && usd.Sign() >= 0 && !usd.saturated()
}

// unit is what one unit of a stated cost is worth: coefficient × 10^-decimals USD.
type unit struct {
	coefficient uint64
	decimals    int
}

// apart reports whether two amounts differ by more than 1 % of the larger.
func apart(a, b Money) bool {
	d := a.Sub(b)
	if d.Sign() < 0 {
		d = d.Neg()
	}
	d = d.Mul(100)
	return d.Cmp(a) > 0 && d.Cmp(b) > 0
}

// month is the month of volumes.
func month(t time.Time) string { return t.UTC().Format("2006-01") }
