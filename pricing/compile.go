package pricing

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// compiler turns a merged draft into a book.
type compiler struct {
	d    *draft
	errs []error
}

func (d *draft) compile() (*Book, error) {
	c := compiler{d: d}
	b := &Book{date: d.date, byName: map[string]*provider{}, hosts: map[string][]endpoint{}, stated: d.stated}
	if d.date.IsZero() {
		return nil, errors.New("the book has no date: date: 2026-01-31")
	}
	for _, p := range d.providers {
		b.providers = append(b.providers, c.provider(b, p))
	}
	for i, p := range d.providers {
		c.link(b, p, b.providers[i])
	}
	for _, o := range d.overrides {
		out := o.override
		out.when = c.when(&o.draftWhen)
		if out.provider != "" {
			p := b.byName[out.provider]
			if p == nil {
				c.fail(o.draftWhen.place.fail("an override for %q, which is no provider of the book", clip(out.provider)))
				continue
			}
			out.provider = p.id
		}
		for _, card := range o.cards {
			out.cards = append(out.cards, c.card(card, "", supplement{}))
		}
		b.overrides = append(b.overrides, &out)
	}
	for _, a := range d.apis {
		out := a.api
		out.when = c.when(&a.draftWhen)
		b.apis = append(b.apis, &out)
	}
	if d.resources != nil {
		b.resources = *d.resources
	}
	if len(c.errs) > maxErrors {
		c.errs = append(c.errs[:maxErrors], errors.New("and more"))
	}
	return b, errors.Join(c.errs...)
}

func (c *compiler) fail(err error) { c.errs = append(c.errs, err) }

func (c *compiler) provider(b *Book, d *draftProvider) *provider {
	p := &provider{
		id: d.id, names: d.names, hosts: d.hosts, aliases: d.aliases, stated: d.stated, volume: d.volume,
		byID: map[string]*model{}, exact: map[string]*model{}, tiers: map[string]bool{},
		billedAtEnd:  d.billedAtEnd != nil && *d.billedAtEnd,
		subscription: d.subscription != nil && *d.subscription,
		selfHosted:   d.selfHosted != nil && *d.selfHosted,
		hourly:       d.hourly,
	}
	for _, name := range append([]string{d.id}, d.names...) {
		if other := b.byName[name]; other != nil && other != p {
			c.fail(d.fail("provider %s: the name %q is %s's already", d.id, name, other.id))
		}
		b.byName[name] = p
	}
	for _, host := range d.hosts {
		if e := newEndpoint(host, p); len(e.host) == 1 {
			b.hosts[e.host[0]] = append(b.hosts[e.host[0]], e)
		} else {
			b.endpoints = append(b.endpoints, e)
		}
	}
	for _, t := range d.tiers {
		p.tiers[t] = true
	}
	for _, a := range d.adjust {
		out := a.adjust
		out.when, out.at = c.when(&a.draftWhen), a.draftWhen.place
		p.adjust = append(p.adjust, &out)
	}
	for _, m := range d.models {
		c.model(p, d, m)
	}
	for _, m := range p.models {
		if p.exact[m.id] == nil {
			p.exact[m.id] = m
		}
	}
	return p
}

// link resolves what names other providers.
func (c *compiler) link(b *Book, d *draftProvider, p *provider) {
	for _, id := range d.fallback {
		other := b.byName[id]
		if other == nil || other == p {
			c.fail(d.fail("provider %s falls back on %q, which is no other provider of the book", d.id, clip(id)))
			continue
		}
		p.fallback = append(p.fallback, other)
	}
	for vendor, id := range d.vendors {
		other := b.byName[id]
		if other == nil {
			c.fail(d.fail("provider %s: vendor %q is no provider of the book", d.id, clip(id)))
			continue
		}
		if p.vendors == nil {
			p.vendors = map[string]*provider{}
		}
		p.vendors[vendor] = other
	}
}

func (c *compiler) model(p *provider, dp *draftProvider, d *draftModel) {
	id := strings.ToLower(d.id)
	if p.byID[id] != nil {
		c.fail(d.fail("model %s stands twice", d.id))
		return
	}
	if len(d.cards) == 0 {
		c.fail(d.fail("model %s has no prices", d.id))
		return
	}
	m := &model{id: id, at: d.place}
	if d.match != nil {
		m.match = *d.match
	} else {
		m.match.exact = []string{id}
	}
	var more supplement
	for _, a := range dp.add {
		if a.models == nil || a.models.match(id) {
			more.add = append(more.add, a)
		}
	}
	for _, r := range dp.derive {
		if r.models == nil || r.models.match(id) {
			more.derive = append(more.derive, r)
		}
	}
	for _, card := range slices.Concat(d.cards, d.extra) {
		m.cards = append(m.cards, c.card(card, dp.currency, more))
	}
	p.models = append(p.models, m)
	p.byID[id] = m
	for _, name := range m.match.exact {
		if p.exact[name] == nil {
			p.exact[name] = m
		}
	}
	if m.match.hasRules() {
		p.rules = append(p.rules, m)
	}
}

// supplement is what a provider gives to the cards of its models that lack it.
type supplement struct {
	add    []*draftAdd
	derive []*derive
}

func (c *compiler) card(d *draftCard, currency string, more supplement) *card {
	out := &card{when: c.when(&d.draftWhen), at: d.place, from: d.source}
	if d.currency != "" {
		currency = d.currency
	}
	rate := uint64(factorOne)
	if currency != "" && currency != "USD" {
		var ok bool
		if rate, ok = c.d.currencies[currency]; !ok {
			c.fail(d.place.fail("no rate for the currency %s: give one under currencies", clip(currency)))
		}
	}
	prepare := func(r rates, under *rates) rates {
		r = r.inCurrency(rate)
		if under != nil {
			r.inherit(under)
		}
		for _, a := range more.add {
			r.inherit(&a.rates)
		}
		for _, d := range more.derive {
			if r.own&(1<<d.class) == 0 && r.own&(1<<d.from) != 0 {
				r.set(d.class, r.usd[d.from].MulDiv(d.times, factorOne))
			}
		}
		r.fill()
		return r
	}
	out.base = prepare(d.rates, nil)
	under := d.rates.inCurrency(rate)
	for _, s := range d.steps {
		r := prepare(s.rates, &under)
		out.steps = append(out.steps, step{over: s.over, marginal: s.marginal, rates: r})
		under.replace(s.rates.inCurrency(rate))
	}
	return out
}

// inCurrency converts at a rate of 1e-9 USD.
func (r rates) inCurrency(rate uint64) rates {
	if rate == factorOne {
		return r
	}
	for c := range llm.NumClasses {
		r.usd[c] = r.usd[c].MulDiv(rate, factorOne)
	}
	sized := r.sized
	r.sized = nil
	for class, by := range sized {
		out := make(map[string]Money, len(by))
		for k, v := range by {
			out[k] = v.MulDiv(rate, factorOne)
		}
		if r.sized == nil {
			r.sized = map[llm.Class]map[string]Money{}
		}
		r.sized[class] = out
	}
	tools := r.tools
	r.tools = nil
	for k, v := range tools {
		if r.tools == nil {
			r.tools = map[string]Money{}
		}
		r.tools[k] = v.MulDiv(rate, factorOne)
	}
	return r
}

// inherit takes what r does not state from under.
func (r *rates) inherit(under *rates) {
	for c := range llm.NumClasses {
		if r.own&(1<<c) == 0 && r.sized[c] == nil && under.own&(1<<c) != 0 {
			r.set(c, under.usd[c])
		}
	}
	for class, by := range under.sized {
		if r.own&(1<<class) == 0 && r.sized[class] == nil {
			sized := map[llm.Class]map[string]Money{class: by}
			insert(sized, r.sized)
			r.sized = sized
		}
	}
	if len(under.tools) > 0 {
		tools := map[string]Money{}
		insert(tools, under.tools)
		insert(tools, r.tools)
		r.tools = tools
	}
}

// replace takes what by states.
func (r *rates) replace(by rates) {
	under := *r
	*r = by
	r.inherit(&under)
}

func (c *compiler) when(d *draftWhen) when {
	w := d.when
	if d.hours == "" && d.days == 0 && d.calendar == "" {
		if d.zone != "" {
			c.fail(d.place.fail("a zone without hours or days"))
		}
		return w
	}
	w.clock = &clock{zone: time.UTC, days: d.days}
	if d.calendar != "" {
		cal := c.d.calendars[d.calendar]
		if cal == nil {
			c.fail(d.place.fail("no calendar %q in the book", clip(d.calendar)))
			return w
		}
		w.clock.zone, w.clock.holidays = cal.zone, cal.holidays
	}
	if d.zone != "" {
		w.clock.zone, _ = time.LoadLocation(d.zone) // checked when it was read
	}
	if d.hours != "" {
		w.clock.start, w.clock.end, _ = parseHours(d.hours) // likewise
	}
	if w.clock.days == 0 {
		w.clock.days = everyDay
	}
	return w
}
