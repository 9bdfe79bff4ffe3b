package pricing

import (
	"maps"
	"slices"
	"strings"
)

// Change is one model, or a provider's terms, that two books say different things of.
type Change struct {
	Where    string   // provider/model, or provider
	Old, New []string // in the words of Show; empty: was not there, is not there
}

// Diff returns what changes from a to b, by provider and model.
func Diff(a, b *Book) []Change {
	before, after := a.lines(), b.lines()
	var out []Change
	for _, where := range slices.Sorted(maps.Keys(before)) {
		if now := after[where]; !slices.Equal(before[where], now) {
			out = append(out, Change{where, before[where], now})
		}
	}
	for _, where := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[where]; !ok {
			out = append(out, Change{where, nil, after[where]})
		}
	}
	return out
}

// lines describes the book: each provider's terms and each model's names and cards.
func (b *Book) lines() map[string][]string {
	out := map[string][]string{}
	for _, p := range b.providers {
		terms := []string{"terms" + p.traits()}
		for _, a := range p.adjust {
			terms = append(terms, "adjust "+a.String()+a.models.words())
		}
		out[p.id] = terms
		for _, m := range p.models {
			lines := []string{"names" + m.match.words()}
			for _, c := range m.cards {
				lines = append(lines, c.String())
			}
			out[p.id+"/"+m.id] = lines
		}
	}
	for _, o := range b.overrides {
		where := "override"
		if o.provider != "" {
			where += " " + o.provider
		}
		words := append([]string{"contract"}, o.when.words()...)
		switch {
		case o.free:
			words = append(words, "free")
		case o.subscription:
			words = append(words, "subscription")
		case o.times != 0:
			words = append(words, "times "+nano(o.times))
		}
		for _, c := range o.cards {
			words = append(words, c.String())
		}
		out[where] = append(out[where], strings.Join(words, ", ")+o.models.words())
	}
	return out
}

// words writes a matcher.
func (m *matcher) words() string {
	if m == nil {
		return ""
	}
	var s strings.Builder
	for _, l := range []struct {
		name  string
		items []string
	}{{"exact", m.exact}, {"prefix", m.prefix}, {"suffix", m.suffix}, {"contains", m.contains}} {
		if len(l.items) > 0 {
			s.WriteString(" " + l.name + " " + strings.Join(l.items, "|"))
		}
	}
	for _, r := range m.regex {
		s.WriteString(" regex " + r.String())
	}
	for _, g := range m.all {
		s.WriteString(" all(")
		for _, member := range g {
			s.WriteString(member.words())
		}
		s.WriteString(" )")
	}
	return s.String()
}
