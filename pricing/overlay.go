package pricing

import (
	"slices"
	"strings"
)

// overlay lays d over what was read before. What d says goes first.
func (to *draft) overlay(d *draft) {
	if to.currencies == nil {
		*to = draft{currencies: map[string]uint64{}, calendars: map[string]*calendar{}, stated: map[string]unit{}}
	}
	if d.date.After(to.date) {
		to.date = d.date
	}
	insert(to.currencies, d.currencies)
	insert(to.calendars, d.calendars)
	insert(to.stated, d.stated)
	to.overrides = append(d.overrides, to.overrides...)
	to.apis = append(d.apis, to.apis...)
	if d.resources != nil {
		to.resources = d.resources
	}
	for _, p := range d.providers {
		i := slices.IndexFunc(to.providers, func(old *draftProvider) bool { return old.id == p.id })
		if i < 0 {
			to.providers = append(to.providers, p)
			continue
		}
		to.providers[i].overlay(p)
	}
}

func insert[K comparable, V any](to, from map[K]V) {
	for k, v := range from {
		to[k] = v
	}
}

func (to *draftProvider) overlay(p *draftProvider) {
	to.names = append(p.names, to.names...)
	to.hosts = append(p.hosts, to.hosts...)
	to.tiers = append(p.tiers, to.tiers...)
	to.adjust = append(p.adjust, to.adjust...)
	to.derive = append(p.derive, to.derive...)
	to.add = append(p.add, to.add...)
	if p.hasFallback {
		to.fallback, to.hasFallback = p.fallback, true
	}
	to.aliases = joined(to.aliases, p.aliases)
	to.vendors = joined(to.vendors, p.vendors)
	to.stated = joined(to.stated, p.stated)
	to.volume = joined(to.volume, p.volume)
	if p.currency != "" {
		to.currency = p.currency
	}
	for _, flag := range [][2]**bool{{&to.billedAtEnd, &p.billedAtEnd}, {&to.subscription, &p.subscription}, {&to.selfHosted, &p.selfHosted}} {
		if *flag[1] != nil {
			*flag[0] = *flag[1]
		}
	}
	if p.hourly != nil {
		to.hourly = p.hourly
	}
	base := make(map[string]*draftModel, len(to.models))
	for _, m := range to.models {
		base[strings.ToLower(m.id)] = m
	}
	replaced := map[*draftModel]bool{}
	for _, m := range p.models {
		old := base[strings.ToLower(m.id)]
		if old == nil {
			continue
		}
		replaced[old] = true
		if m.match == nil {
			m.match = old.match
		}
		if m.cards == nil {
			m.cards, m.extra = old.cards, append(old.extra, m.extra...)
		}
	}
	models := slices.Clone(p.models)
	for _, m := range to.models {
		if !replaced[m] {
			models = append(models, m)
		}
	}
	to.models = models
}

func joined[K comparable, V any](a, b map[K]V) map[K]V {
	if a == nil {
		return b
	}
	insert(a, b)
	return a
}
