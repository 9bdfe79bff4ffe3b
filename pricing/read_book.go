package pricing

import (
	"regexp"
	"strings"
	"time"
)

func parseDraft(s Source) (*draft, error) {
	root, err := parseTree(s.Name, s.Data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: s.Name}
	d := &draft{currencies: map[string]uint64{}, calendars: map[string]*calendar{}, stated: map[string]unit{}}
	format := false
	r.object(root, map[string]func(*node){
		"format": func(n *node) {
			if format = true; r.text(n) != Format {
				r.fail(n, "format %q: this program reads %s", clip(n.text), Format)
			}
		},
		"date": func(n *node) {
			t, err := time.Parse(time.DateOnly, r.text(n))
			if err != nil {
				r.fail(n, "%q: want a date as 2026-01-31", clip(n.text))
			}
			d.date = t
		},
		"source": func(n *node) { r.text(n) },
		"currencies": func(n *node) {
			r.pairs(n, func(key, value *node) {
				r.object(value, map[string]func(*node){
					"usd":    func(n *node) { d.currencies[key.text] = r.factor(n) },
					"source": func(n *node) { r.text(n) },
				})
			})
		},
		"calendars": func(n *node) {
			r.pairs(n, func(key, value *node) { d.calendars[key.text] = r.calendar(value) })
		},
		"stated":    func(n *node) { d.stated = r.stated(n) },
		"providers": func(n *node) { r.list(n, func(n *node) { d.providers = append(d.providers, r.provider(n)) }) },
		"apis":      func(n *node) { r.list(n, func(n *node) { d.apis = append(d.apis, r.api(n)) }) },
		"resources": func(n *node) { d.resources = r.resources(n) },
		"overrides": func(n *node) { r.list(n, func(n *node) { d.overrides = append(d.overrides, r.override(n)) }) },
	})
	if !format {
		r.fail(root, "the key format is missing: format: %s", Format)
	}
	return d, r.err()
}

func (r *reader) place(n *node) place { return place{r.file, n.line, n.col} }

func (r *reader) zone(n *node) *time.Location {
	z, err := time.LoadLocation(r.text(n))
	if err != nil {
		r.fail(n, "unknown time zone %q", clip(n.text))
		return time.UTC
	}
	return z
}

func (r *reader) calendar(n *node) *calendar {
	c := &calendar{zone: time.UTC, holidays: map[string]bool{}}
	r.object(n, map[string]func(*node){
		"zone":   func(n *node) { c.zone = r.zone(n) },
		"source": func(n *node) { r.text(n) },
		"holidays": func(n *node) {
			r.list(n, func(n *node) {
				if _, err := time.Parse(time.DateOnly, r.text(n)); err != nil {
					r.fail(n, "%q: want a date as 2026-01-31", clip(n.text))
				}
				c.holidays[n.text] = true
			})
		},
	})
	return c
}

func (r *reader) stated(n *node) map[string]unit {
	out := map[string]unit{}
	r.pairs(n, func(key, value *node) {
		m := r.number(value, moneyDecimals)
		u := unit{decimals: moneyDecimals, coefficient: m.lo}
		for m.hi != 0 || u.coefficient%10 == 0 && u.coefficient != 0 {
			m = m.MulDiv(1, 10)
			u.coefficient, u.decimals = m.lo, u.decimals-1
		}
		if u.coefficient == 0 {
			r.fail(value, "a unit worth nothing")
		}
		out[key.text] = u
	})
	return out
}

func (r *reader) provider(n *node) *draftProvider {
	p := &draftProvider{place: r.place(n)}
	switched := func(to **bool) func(*node) {
		return func(n *node) { v := r.flag(n); *to = &v }
	}
	r.object(n, map[string]func(*node){
		"id":           func(n *node) { p.id = strings.ToLower(r.text(n)) },
		"names":        func(n *node) { p.names = r.texts(n) },
		"endpoints":    func(n *node) { p.hosts = r.endpoints(n) },
		"aliases":      func(n *node) { p.aliases = r.words(n) },
		"fallback":     func(n *node) { p.fallback, p.hasFallback = r.texts(n), true },
		"vendors":      func(n *node) { p.vendors = r.words(n) },
		"currency":     func(n *node) { p.currency = r.text(n) },
		"subscription": switched(&p.subscription),
		"self_hosted": func(n *node) {
			if n.kind != mapNode {
				switched(&p.selfHosted)(n)
				return
			}
			yes := true
			p.selfHosted, p.hourly = &yes, &Hourly{}
			r.object(n, map[string]func(*node){
				"fixed_per_hour":    func(n *node) { p.hourly.Fixed = r.number(n, moneyDecimals) },
				"variable_per_hour": func(n *node) { p.hourly.Variable = r.number(n, moneyDecimals) },
				"source":            func(n *node) { r.text(n) },
			})
		},
		"billed_at": func(n *node) {
			end := r.text(n) == "end"
			if !end && n.text != "start" {
				r.fail(n, "%q: calls are billed at their start or end", clip(n.text))
			}
			p.billedAtEnd = &end
		},
		"standard_tiers": func(n *node) { p.tiers = r.texts(n) },
		"stated":         func(n *node) { p.stated = r.stated(n) },
		"source":         func(n *node) { r.text(n) },
		"month_tokens": func(n *node) {
			p.volume = map[string]uint64{}
			r.pairs(n, func(key, value *node) {
				if _, err := time.Parse("2006-01", key.text); err != nil {
					r.fail(key, "%q: want a month as 2026-01", clip(key.text))
				}
				p.volume[key.text] = r.count(value)
			})
		},
		"adjust": func(n *node) { r.list(n, func(n *node) { p.adjust = append(p.adjust, r.adjust(n)) }) },
		"derive": func(n *node) { r.list(n, func(n *node) { p.derive = append(p.derive, r.derive(n)) }) },
		"add":    func(n *node) { r.list(n, func(n *node) { p.add = append(p.add, r.add(n)) }) },
		"models": func(n *node) { r.list(n, func(n *node) { p.models = append(p.models, r.model(n)) }) },
	})
	if p.id == "" {
		r.fail(n, "a provider without an id")
	}
	return p
}

// words reads a mapping of names to names, in lower case.
func (r *reader) words(n *node) map[string]string {
	out := map[string]string{}
	r.pairs(n, func(key, value *node) { out[strings.ToLower(key.text)] = strings.ToLower(r.text(value)) })
	return out
}

func (r *reader) matcher(n *node) *matcher {
	m := &matcher{}
	r.object(n, map[string]func(*node){
		"exact":    func(n *node) { m.exact = r.texts(n) },
		"prefix":   func(n *node) { m.prefix = r.texts(n) },
		"suffix":   func(n *node) { m.suffix = r.texts(n) },
		"contains": func(n *node) { m.contains = r.texts(n) },
		"regex": func(n *node) {
			compile := func(n *node) {
				re, err := regexp.Compile("(?i)" + r.text(n))
				if err != nil || len(n.text) > 500 {
					r.fail(n, "no regular expression: %v", err)
					return
				}
				m.regex = append(m.regex, re)
			}
			if n.kind == listNode {
				r.list(n, compile)
			} else {
				compile(n)
			}
		},
		"all": func(n *node) {
			var group []*matcher
			r.list(n, func(n *node) { group = append(group, r.matcher(n)) })
			if len(group) > 0 {
				m.all = append(m.all, group)
			}
		},
	})
	if len(m.exact) == 0 && !m.hasRules() {
		r.fail(n, "matches nothing")
	}
	return m
}

func (r *reader) model(n *node) *draftModel {
	m := &draftModel{place: r.place(n)}
	r.object(n, map[string]func(*node){
		"id":     func(n *node) { m.id = r.text(n) },
		"match":  func(n *node) { m.match = r.matcher(n) },
		"source": func(n *node) { r.text(n) },
		"prices": func(n *node) {
			if n.kind == mapNode { // the one card of a simple model
				m.cards = append(m.cards, r.card(n))
				return
			}
			r.list(n, func(n *node) { m.cards = append(m.cards, r.card(n)) })
		},
		"extra_prices": func(n *node) { r.list(n, func(n *node) { m.extra = append(m.extra, r.card(n)) }) },
	})
	if m.id == "" {
		r.fail(n, "a model without an id")
	}
	return m
}

func (r *reader) override(n *node) *draftOverride {
	o := &draftOverride{}
	o.draftWhen.place = r.place(n)
	keys := r.whenKeys(&o.draftWhen)
	keys["provider"] = func(n *node) { o.provider = strings.ToLower(r.text(n)) }
	keys["models"] = func(n *node) { o.models = r.matcher(n) }
	keys["endpoints"] = func(n *node) {
		for _, s := range r.endpoints(n) {
			o.hosts = append(o.hosts, newEndpoint(s, nil))
		}
	}
	keys["times"] = func(n *node) { o.times = r.factor(n) }
	keys["free"] = func(n *node) { o.free = r.flag(n) }
	keys["subscription"] = func(n *node) { o.subscription = r.flag(n) }
	keys["source"] = func(n *node) { r.text(n) }
	keys["prices"] = func(n *node) {
		if n.kind == mapNode {
			o.cards = append(o.cards, r.card(n))
			return
		}
		r.list(n, func(n *node) { o.cards = append(o.cards, r.card(n)) })
	}
	r.object(n, keys)
	kinds := 0
	for _, is := range []bool{o.times != 0, o.free, o.subscription, len(o.cards) > 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		r.fail(n, "an override says one of prices, times, free, subscription")
	}
	o.anyTier = len(o.draftWhen.tiers) == 0
	return o
}

func (r *reader) api(n *node) *draftAPI {
	a := &draftAPI{}
	a.draftWhen.place = r.place(n)
	priced := false
	price := func(scale int) func(*node) {
		return func(n *node) {
			if priced {
				r.fail(n, "an API has one price")
			}
			priced, a.each = true, r.number(n, scale)
		}
	}
	instants := r.whenKeys(&a.draftWhen)
	r.object(n, map[string]func(*node){
		"name": func(n *node) { a.name = r.text(n) },
		"endpoints": func(n *node) {
			for _, s := range r.endpoints(n) {
				a.endpoints = append(a.endpoints, newEndpoint(s, nil))
			}
		},
		"methods": func(n *node) {
			for _, m := range r.texts(n) {
				a.methods = append(a.methods, strings.ToUpper(m))
			}
		},
		"failures":     func(n *node) { a.failures = r.flag(n) },
		"each":         price(moneyDecimals),
		"per_thousand": price(moneyDecimals - 3),
		"from":         instants["from"],
		"until":        instants["until"],
		"hours":        instants["hours"],
		"days":         instants["days"],
		"zone":         instants["zone"],
		"calendar":     instants["calendar"],
		"source":       func(n *node) { r.text(n) },
	})
	if a.name == "" || len(a.endpoints) == 0 || !priced {
		r.fail(n, "an API needs a name, endpoints and a price")
	}
	return a
}

func (r *reader) resources(n *node) *Resources {
	out := &Resources{}
	r.object(n, map[string]func(*node){
		"cpu_hour":        func(n *node) { out.CPUSecond = r.number(n, moneyDecimals).MulDiv(1, 3600) },
		"memory_gib_hour": func(n *node) { out.MemoryGiBHour = r.number(n, moneyDecimals) },
		"network_gib":     func(n *node) { out.NetworkGiB = r.number(n, moneyDecimals) },
		"source":          func(n *node) { r.text(n) },
	})
	return out
}
